//! Who asks, and about what.

use std::fmt;

/// What a certificate makes of its holder: the kind of party in its URI.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Role {
    /// A wallet back end.
    Client,
    /// A person or job that administers.
    Operator,
    /// A member of the cluster.
    Node,
}

impl fmt::Display for Role {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Client => "client",
            Self::Operator => "operator",
            Self::Node => "node",
        })
    }
}

/// A caller's id: the path of its certificate's URI, such as `client/payouts`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct CallerId<'a>(pub &'a str);

impl fmt::Display for CallerId<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.0)
    }
}

/// A wallet's name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct WalletName<'a>(pub &'a str);

/// Who asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Subject<'a> {
    /// The caller; for a forwarded call the one who first made it.
    pub caller: CallerId<'a>,
    /// The caller's role.
    pub role: Role,
}

/// What the action is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Resource<'a> {
    /// The cluster, its chain, or all wallets.
    Cluster,
    /// One wallet and what it holds.
    Wallet(WalletName<'a>),
}
