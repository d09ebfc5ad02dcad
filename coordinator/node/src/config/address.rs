//! Addresses that a node advertises.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

/// A host name or IP address and a port, as other machines reach it.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HostPort {
    /// A DNS name or an IP address; IPv6 without brackets.
    pub host: String,
    /// The port; never 0 once parsed.
    pub port: u16,
}

impl HostPort {
    /// The URI that a gRPC channel with TLS is opened to.
    pub fn https(&self) -> String {
        format!("https://{self}")
    }
}

impl fmt::Display for HostPort {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(formatter, "[{}]:{}", self.host, self.port)
        } else {
            write!(formatter, "{}:{}", self.host, self.port)
        }
    }
}

impl FromStr for HostPort {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Some((scheme, _)) = text.split_once("://") {
            return Err(format!("leave out {scheme}://: it must be the host and the port alone"));
        }
        let (host, port) = text.rsplit_once(':').ok_or("it must be host:port, such as 10.0.0.1:7800")?;
        let port: u16 =
            port.parse().ok().filter(|port| *port != 0).ok_or("the port must be a number within 1..=65535")?;
        let bare = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
        let host = bare.unwrap_or(host);
        match host.parse::<IpAddr>() {
            Ok(address) if address.is_unspecified() => {
                Err("an advertised address must be one that others can reach".to_owned())
            }
            Ok(address) if address.is_ipv6() && bare.is_none() => {
                Err("an IPv6 address needs brackets, such as [::1]".to_owned())
            }
            Ok(_) => Ok(()),
            Err(_) if bare.is_none() && is_dns_name(host) => Ok(()),
            Err(_) => Err("the host must be an IP address or a DNS name".to_owned()),
        }?;
        Ok(Self { host: host.to_owned(), port })
    }
}

/// RFC 1123: labels of 1 to 63 letters, digits and inner hyphens, 253 characters in all.
pub(crate) fn is_dns_name(host: &str) -> bool {
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
    };
    host.len() <= 253 && host.split('.').all(label)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn addresses_that_others_can_reach_are_read_and_shown_alike() {
        for text in ["10.0.0.1:7800", "node-1.example.org:1", "[::1]:65535", "localhost:80"] {
            let address: HostPort = text.parse().unwrap();
            assert_eq!(address.to_string(), text);
            assert_eq!(address.https(), format!("https://{text}"));
        }
    }

    #[test]
    fn addresses_that_nobody_could_reach_are_refused() {
        for text in [
            "",
            "10.0.0.1",
            "10.0.0.1:",
            "10.0.0.1:0",
            "10.0.0.1:65536",
            "0.0.0.0:1",
            "[::]:1",
            "::1:80",
            ":80",
            "a_b:80",
            "-a:80",
            "[host]:80",
            "a b:80",
            "a..b:80",
        ] {
            assert!(text.parse::<HostPort>().is_err(), "{text}");
        }
        let url = "https://10.0.0.1:7800".parse::<HostPort>().unwrap_err();
        assert!(url.starts_with("leave out https://"), "{url}");
    }
}
