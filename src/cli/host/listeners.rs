//! From addresses to listeners.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

use tokio::net::TcpListener;

use crate::cli::config::Listen;
use crate::cli::error::Error;

/// Binds all addresses.
///
/// # Errors
/// When one of them cannot be bound.
pub(super) async fn bind(listens: &[Listen]) -> Result<Vec<TcpListener>, Error> {
    let mut listeners = Vec::new();
    for listen in listens {
        listeners.extend(bind_one(listen).await?);
    }
    Ok(listeners)
}

/// Binds what an address stands for. What does not exist on this host is left out, if something of it does.
async fn bind_one(listen: &Listen) -> Result<Vec<TcpListener>, Error> {
    let (mut bound, mut absent) = (Vec::<TcpListener>::new(), None);
    for address in &listen.addresses {
        let mut address = *address;
        // `localhost:0` takes one free port, and not two.
        if let (0, Some(first)) = (address.port(), bound.first()) {
            address.set_port(first.local_addr().map_err(|error| cannot(listen, &error))?.port());
        }
        match bind_address(address).await {
            Ok(listener) => bound.push(listener),
            Err(error) if is_absent(&error) => absent = Some(error),
            Err(error) => return Err(cannot(listen, &error)),
        }
    }
    match absent {
        Some(error) if bound.is_empty() => Err(cannot(listen, &error)),
        _ => Ok(bound),
    }
}

async fn bind_address(address: SocketAddr) -> io::Result<TcpListener> {
    match TcpListener::bind(address).await {
        // Every interface of a host without IPv6.
        Err(error) if is_absent(&error) && address.ip() == Ipv6Addr::UNSPECIFIED => {
            TcpListener::bind((Ipv4Addr::UNSPECIFIED, address.port())).await
        }
        bound => bound,
    }
}

/// Whether the host has no such address, or no such family of addresses.
fn is_absent(error: &io::Error) -> bool {
    use rustix::io::Errno;
    error.kind() == io::ErrorKind::AddrNotAvailable
        || error.raw_os_error() == Some(Errno::AFNOSUPPORT.raw_os_error())
}

fn cannot(listen: &Listen, error: &io::Error) -> Error {
    let problem = match error.kind() {
        io::ErrorKind::AddrInUse => format!("{listen} is in use by another process"),
        _ => format!("cannot listen on {listen}: {error}"),
    };
    Error::failed(problem, "choose another with --listen")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn one_port_serves_all_that_a_name_stands_for() {
        let listens = Listen::list("localhost:0,127.0.0.1:0").expect("two addresses");
        let listeners = bind(&listens).await.expect("loopback is there");
        let addresses: Vec<SocketAddr> =
            listeners.iter().map(|it| it.local_addr().expect("it is bound")).collect();
        let (of_name, last) = addresses.split_at(addresses.len() - 1);
        assert!(of_name.iter().all(|it| it.port() == of_name[0].port()), "{addresses:?}");
        assert_eq!(of_name[0].ip(), Ipv4Addr::LOCALHOST);
        assert_ne!(last[0].port(), of_name[0].port());

        let taken = Listen::list(&last[0].to_string()).expect("an address");
        let error = bind(&taken).await.expect_err("it is taken");
        assert!(error.line().expect("it says so").contains("is in use by another process"));
    }
}
