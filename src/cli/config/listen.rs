//! Where to listen: addresses as people write them.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs};

/// An address to listen on, as it was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listen {
    text: String,
    /// What it stands for. Some of them may not exist on this host: `localhost` has no `::1` where there is no IPv6.
    pub addresses: Vec<SocketAddr>,
}

impl Listen {
    /// Reads addresses with commas between: `127.0.0.1:9443`, `[::1]:9443`, `localhost:9443`, or `:9443` for every
    /// interface. A name is looked up now.
    pub fn list(text: &str) -> Option<Vec<Self>> {
        let listens: Option<Vec<Self>> =
            text.split(',').map(|part| Self::one(part.trim())).collect();
        listens.filter(|listens| !listens.is_empty())
    }

    fn one(text: &str) -> Option<Self> {
        let (host, port) = text.rsplit_once(':')?;
        // `u16::from_str` takes a sign, and a port has none.
        let port = Some(port).filter(|port| port.bytes().all(|byte| byte.is_ascii_digit()))?;
        let port: u16 = port.parse().ok()?;
        let addresses = match host {
            // One socket for both families, where the system has both.
            "" => vec![SocketAddr::from((Ipv6Addr::UNSPECIFIED, port))],
            // Looked up nowhere: in some containers nothing knows it.
            _ if host.eq_ignore_ascii_case("localhost") => {
                let loopback: [IpAddr; 2] =
                    [Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()];
                loopback.map(|address| SocketAddr::from((address, port))).to_vec()
            }
            _ => text.to_socket_addrs().ok()?.collect(),
        };
        (!addresses.is_empty()).then(|| Self { text: text.to_owned(), addresses })
    }

    /// Whether nobody but this host reaches it.
    pub fn is_loopback(&self) -> bool {
        self.addresses.iter().all(|address| address.ip().to_canonical().is_loopback())
    }
}

impl fmt::Display for Listen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addresses(text: &str) -> Option<Vec<String>> {
        let listens = Listen::list(text)?;
        let addresses = listens.iter().flat_map(|listen| &listen.addresses);
        Some(addresses.map(ToString::to_string).collect())
    }

    #[test]
    fn an_address_is_written_as_people_write_it() {
        let all = |text: &str| addresses(text).expect("it is one").join(" ");
        assert_eq!(all("127.0.0.1:9443"), "127.0.0.1:9443");
        assert_eq!(all("[::1]:0"), "[::1]:0");
        assert_eq!(all("localhost:9443"), "127.0.0.1:9443 [::1]:9443");
        assert_eq!(all(":9443"), "[::]:9443");
        assert_eq!(all("127.0.0.1:1, [::1]:2,:3"), "127.0.0.1:1 [::1]:2 [::]:3");
        for bad in [
            "",
            ",",
            "here",
            "9443",
            "127.0.0.1",
            "127.0.0.1:",
            "a b:1",
            "localhost:x",
            "localhost:+1",
            "localhost:65536",
            "::1:9443x",
            "127.0.0.1:1,",
        ] {
            assert_eq!(addresses(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn only_what_all_of_it_is_on_loopback_is_loopback() {
        let loopback = |text: &str| Listen::list(text).expect("it is one")[0].is_loopback();
        assert!(loopback("localhost:1") && loopback("127.9.9.9:1") && loopback("[::1]:1"));
        assert!(loopback("[::ffff:127.0.0.1]:1"));
        assert!(!loopback(":1") && !loopback("0.0.0.0:1") && !loopback("[::]:1"));
    }
}
