//! Everything that goes over the wire, against a real server on a real socket.

mod http;
mod mesh;
mod support;
mod tokens;
