//! The program as its users run it: as a process, with signals, files and commands.

mod commands;
mod crash;
mod everyday;
mod faults;
mod leaks;
mod log;
mod mounted;
mod oauth;
mod pasted;
mod restore;
mod start;
mod stop;
mod support;
mod tls;
mod waiting;
