//! `onespend wallet`: descriptors, limits, balances and addresses.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use onespend_proto::client::Client;
use onespend_proto::v1;

use super::answer::{Changed, Limit, Pages};
use super::caps::Caps;
use super::failure::Failure;
use super::session::{Freshness, Repeat, Session, mutation, present};
use super::values;
use super::view::utxo::Utxos;
use super::view::wallet::{Address, Balance, Wallet, Wallets};

/// How private keys begin in descriptors; no address or public key does.
const PRIVATE: [&str; 2] = ["xprv", "tprv"];

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Add a wallet and scan for what it holds; takes as long as bitcoind's scan of the UTXO set
    Register(Register),
    /// List all wallets
    List {
        #[command(flatten)]
        limit: Limit,
        #[command(flatten)]
        freshness: Freshness,
    },
    /// Show one wallet
    Show {
        #[command(flatten)]
        which: Which,
        #[command(flatten)]
        freshness: Freshness,
    },
    /// Sum a wallet's coins by state
    Balance {
        #[command(flatten)]
        which: Which,
        /// Leave out coins with fewer confirmations, whatever their state
        #[arg(long, value_name = "N", default_value_t = 0)]
        min_depth: u32,
        #[command(flatten)]
        freshness: Freshness,
    },
    /// Hand out an address that nobody else was given
    Address {
        #[command(flatten)]
        which: Which,
        /// A change address, for transactions that you build yourself
        #[arg(long)]
        change: bool,
        #[command(flatten)]
        repeat: Repeat,
    },
    /// Refuse new reservations and payments; what may be signed already is still followed
    Freeze {
        #[command(flatten)]
        which: Which,
        /// Why, for people to read
        #[arg(long, value_name = "TEXT", default_value = "")]
        note: String,
        #[command(flatten)]
        repeat: Repeat,
    },
    /// Allow reservations and payments of a frozen wallet again; coins that are held back stay so (`utxo release`)
    Unfreeze {
        #[command(flatten)]
        which: Which,
        #[command(flatten)]
        repeat: Repeat,
    },
    /// Follow single coins for a wallet without a descriptor
    AddOutpoints {
        #[command(flatten)]
        which: Which,
        /// The coins, as txid:vout
        #[arg(required = true, value_name = "OUTPOINT", value_parser = values::outpoint)]
        outpoints: Vec<v1::Outpoint>,
        #[command(flatten)]
        repeat: Repeat,
    },
    /// Change limits; those that are not named stay as they are. Without any, show them
    Limits {
        #[command(flatten)]
        which: Which,
        #[command(flatten)]
        caps: Caps,
        #[command(flatten)]
        repeat: Repeat,
    },
}

/// The wallet that a command is about.
#[derive(Debug, Args)]
pub struct Which {
    /// The wallet
    #[arg(value_parser = values::wallet_id)]
    wallet: String,
}

#[derive(Debug, Args)]
pub struct Register {
    /// Name for the wallet: 1 to 64 of A-Z, a-z, 0-9, '.', '_' and '-'
    #[arg(value_parser = values::wallet_id)]
    wallet: String,
    /// Public multipath descriptor, such as "wpkh([fingerprint/84h/1h/0h]tpub…/<0;1>/*)"
    #[arg(long, required_unless_present_any = ["descriptor_file", "single_outpoints"])]
    descriptor: Option<String>,
    /// File that holds the descriptor; - for standard input
    #[arg(long, value_name = "FILE", conflicts_with = "descriptor")]
    descriptor_file: Option<PathBuf>,
    /// No descriptor: a wallet that follows single coins (`wallet add-outpoints`) and is only reserved from
    #[arg(long, conflicts_with_all = ["descriptor", "descriptor_file", "signer"])]
    single_outpoints: bool,
    /// A signer of the nodes' configuration, or `external` [default: watch only]
    #[arg(long, value_name = "NAME")]
    signer: Option<String>,
    /// Key by which an external signer proves that it has fenced an attempt: x-only (BIP-340), 64 hex digits
    #[arg(long, value_name = "HEX", value_parser = values::fence_key)]
    fence_key: Option<values::Bytes>,
    #[command(flatten)]
    caps: Caps,
    #[command(flatten)]
    repeat: Repeat,
}

impl Command {
    /// Runs it.
    pub async fn run(self, session: &Session) -> Result<(), Failure> {
        let client = session.data()?;
        match self {
            Self::Register(register) => register.run(&client, session).await,
            Self::List { limit, freshness } => list(&limit, &freshness, &client, session).await,
            Self::Show { which, freshness } => {
                session.output.show(&Wallet::from(read(&client, &which, &freshness).await?))
            }
            Self::Balance { which, min_depth, freshness } => {
                let consistency = freshness.consistency();
                let request = v1::GetBalanceRequest { wallet_id: which.wallet.clone(), min_depth, consistency };
                let answer = client.get_balance(request).await.map_err(Failure::of_lagged_read)?;
                session.output.show(&Balance::new(which.wallet, answer))
            }
            Self::Address { which, change, repeat } => address(which, change, repeat.id(), &client, session).await,
            Self::Freeze { which, note, repeat } => {
                let id = repeat.id();
                let request = v1::FreezeWalletRequest { request_id: id.clone(), wallet_id: which.wallet, note };
                let answer = mutation(&id, client.freeze_wallet(request)).await?;
                show(session, answer.wallet, (answer.applied_index, answer.term), id)
            }
            Self::Unfreeze { which, repeat } => {
                let id = repeat.id();
                let request = v1::UnfreezeWalletRequest { request_id: id.clone(), wallet_id: which.wallet };
                let answer = mutation(&id, client.unfreeze_wallet(request)).await?;
                show(session, answer.wallet, (answer.applied_index, answer.term), id)
            }
            Self::AddOutpoints { which, outpoints, repeat } => {
                let id = repeat.id();
                let request =
                    v1::RegisterOutpointsRequest { request_id: id.clone(), wallet_id: which.wallet, outpoints };
                let answer = mutation(&id, client.register_outpoints(request)).await?;
                session.output.show(&Changed {
                    resource: Utxos::new((answer.utxos, false)),
                    applied_index: answer.applied_index,
                    term: answer.term,
                    request_id: id,
                })
            }
            Self::Limits { which, caps, repeat } => limits(which, &caps, repeat.id(), &client, session).await,
        }
    }
}

impl Register {
    async fn run(self, client: &Client, session: &Session) -> Result<(), Failure> {
        let descriptor = match (self.descriptor, self.descriptor_file) {
            (Some(descriptor), _) => descriptor,
            (None, Some(file)) => String::from_utf8_lossy(&values::read_text(&file)?).into_owned(),
            (None, None) if self.single_outpoints => String::new(),
            (None, None) => return Err(Failure::usage("a descriptor is missing")),
        };
        if PRIVATE.iter().any(|prefix| descriptor.contains(prefix)) {
            return Err(Failure::usage("the descriptor holds a private key; it was not sent").remedy(
                "give the public descriptor here, and the private one to a signer of the nodes' configuration",
            ));
        }
        let lines = descriptor.lines().filter(|line| !line.trim().is_empty()).count();
        if lines > 1 {
            return Err(Failure::usage(format!(
                "there are {lines} descriptors, and a wallet has one; nothing was sent"
            ))
            .remedy("give one line, and register another wallet for each other one"));
        }
        let id = self.repeat.id();
        let request = v1::RegisterWalletRequest {
            request_id: id.clone(),
            wallet_id: self.wallet,
            descriptor: descriptor.trim().to_owned(),
            signer: self.signer.unwrap_or_default(),
            limits: Some(self.caps.over(v1::WalletLimits::default())),
            fence_key: self.fence_key.unwrap_or_default().0.into(),
        };
        let answer = mutation(&id, client.register_wallet(request)).await?;
        show(session, answer.wallet, (answer.applied_index, answer.term), id)
    }
}

fn show(
    session: &Session,
    wallet: Option<v1::Wallet>,
    (applied_index, term): (u64, u64),
    request_id: String,
) -> Result<(), Failure> {
    let resource = Wallet::from(present(wallet)?);
    session.output.show(&Changed { resource, applied_index, term, request_id })
}

async fn read(client: &Client, which: &Which, freshness: &Freshness) -> Result<v1::Wallet, Failure> {
    let request = v1::GetWalletRequest { wallet_id: which.wallet.clone(), consistency: freshness.consistency() };
    present(client.get_wallet(request).await.map_err(Failure::of_lagged_read)?.wallet)
}

async fn list(limit: &Limit, freshness: &Freshness, client: &Client, session: &Session) -> Result<(), Failure> {
    let mut pages = Pages::new(limit);
    loop {
        let (page_size, page_token) = pages.next();
        let request = v1::ListWalletsRequest { page_size, page_token, consistency: freshness.consistency() };
        let answer = client.list_wallets(request).await.map_err(Failure::of_lagged_read)?;
        if pages.take(answer.wallets, answer.next_page_token) {
            return session.output.show(&Wallets::new(pages.finish()));
        }
    }
}

async fn address(which: Which, change: bool, id: String, client: &Client, session: &Session) -> Result<(), Failure> {
    let keychain = if change { v1::Keychain::Internal } else { v1::Keychain::External };
    let request = v1::NewAddressRequest { request_id: id.clone(), wallet_id: which.wallet, keychain: keychain.into() };
    let answer = mutation(&id, client.new_address(request)).await?;
    session.output.show(&Changed {
        resource: Address::new(&answer, keychain),
        applied_index: answer.applied_index,
        term: answer.term,
        request_id: id,
    })
}

async fn limits(which: Which, caps: &Caps, id: String, client: &Client, session: &Session) -> Result<(), Failure> {
    let request = v1::GetWalletRequest { wallet_id: which.wallet.clone(), consistency: None };
    let wallet = present(client.get_wallet(request).await.map_err(Failure::of_read)?.wallet)?;
    if !caps.any() {
        return session.output.show(&Wallet::from(wallet));
    }
    let limits = caps.over(wallet.limits.unwrap_or_default());
    let request = v1::SetLimitsRequest { request_id: id.clone(), wallet_id: which.wallet, limits: Some(limits) };
    let answer = mutation(&id, client.set_limits(request)).await?;
    show(session, answer.wallet, (answer.applied_index, answer.term), id)
}
