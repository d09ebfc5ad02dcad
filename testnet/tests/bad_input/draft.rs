//! A payment by PSBT that is right, so that it can be spoilt in one way at a time.

use anyhow::{Context, Result};
use bitcoin::absolute::LockTime;
use bitcoin::psbt::Psbt;
use bitcoin::transaction::Version;
use bitcoin::{Amount, OutPoint, ScriptBuf, Sequence, Transaction, TxIn, TxOut};
use onespend_proto::v1;

use crate::keys::stranger;
use crate::stage::{COIN_SAT, Stage, id, on_wire, outpoint, recipient};

/// What the recipient of a draft gets.
pub const PAID_SAT: u64 = 60_000;
/// What a draft pays in fees: about 5 sat/vB.
pub const FEE_SAT: u64 = 1_000;
/// The recipient's script is [`stranger`] of this.
pub const PAYEE: u8 = 7;
/// Position of the recipient's output.
pub const PAYEE_VOUT: usize = 0;
/// Position of the change output.
pub const CHANGE_VOUT: usize = 1;
const INPUTS: usize = 2;

/// A payment on a reservation, and everything to ask for its signature.
#[derive(Clone)]
pub struct Draft {
    pub wallet: String,
    pub payment: String,
    pub recipients: Vec<v1::Recipient>,
    pub reservation: v1::Reservation,
    pub psbt: Psbt,
}

impl Draft {
    /// Reserves two coins of a wallet and pays from them.
    pub async fn new(stage: &mut Stage, wallet: &str, payment: &str) -> Result<Self> {
        let coins = stage.coins(wallet).await?;
        let coins = coins.iter().take(INPUTS).map(outpoint).collect::<Result<Vec<_>>>()?;
        let request = v1::ReserveUtxosRequest { payment_id: payment.to_owned(), ..reserve(wallet, &coins) };
        let reservation = stage.reserve(request).await?;
        let change_script = stage.address(wallet, v1::Keychain::Internal).await?;
        let outputs = vec![
            TxOut { value: Amount::from_sat(PAID_SAT), script_pubkey: stranger(PAYEE) },
            TxOut {
                value: Amount::from_sat(COIN_SAT * INPUTS as u64 - PAID_SAT - FEE_SAT),
                script_pubkey: change_script,
            },
        ];
        let transaction = Transaction {
            version: Version::TWO,
            lock_time: LockTime::ZERO,
            input: coins.iter().map(|coin| input(*coin)).collect(),
            output: outputs,
        };
        let mut psbt = Psbt::from_unsigned_tx(transaction)?;
        for (at, coin) in reservation.utxos.iter().enumerate() {
            psbt.inputs[at].witness_utxo = Some(txout(coin)?);
        }
        let recipients = vec![recipient(PAYEE, PAID_SAT.cast_signed())];
        Ok(Self { wallet: wallet.to_owned(), payment: payment.to_owned(), recipients, reservation, psbt })
    }

    /// The request, under a new request id.
    pub fn request(&self) -> v1::SignPsbtRequest {
        v1::SignPsbtRequest { psbt: self.psbt.serialize().into(), ..self.request_with(&[]) }
    }

    /// The same with other bytes for the PSBT.
    pub fn request_with(&self, psbt: &[u8]) -> v1::SignPsbtRequest {
        v1::SignPsbtRequest {
            request_id: id(),
            wallet_id: self.wallet.clone(),
            payment_id: self.payment.clone(),
            recipients: self.recipients.clone(),
            reservation_id: self.reservation.reservation_id.clone(),
            fence: self.reservation.fence,
            psbt: psbt.to_vec().into(),
        }
    }

    /// The coins that it holds.
    pub fn coins(&self) -> Vec<OutPoint> {
        self.psbt.unsigned_tx.input.iter().map(|input| input.previous_output).collect()
    }

    /// Takes from the change what the fee is to be more than now, or gives it.
    pub fn set_fee(&mut self, fee_sat: u64) {
        let change_sat = COIN_SAT * INPUTS as u64 - self.paid_sat() - fee_sat;
        self.psbt.unsigned_tx.output[CHANGE_VOUT].value = Amount::from_sat(change_sat);
    }

    /// Pays the recipient another amount, in order and transaction; the change is left alone.
    pub fn set_paid(&mut self, paid_sat: u64) {
        self.recipients[0].amount_sat = paid_sat.cast_signed();
        self.psbt.unsigned_tx.output[PAYEE_VOUT].value = Amount::from_sat(paid_sat);
    }

    fn paid_sat(&self) -> u64 {
        self.psbt.unsigned_tx.output[PAYEE_VOUT].value.to_sat()
    }

    /// One more output.
    pub fn add_output(&mut self, script_pubkey: ScriptBuf, value_sat: u64) {
        self.psbt.unsigned_tx.output.push(TxOut { value: Amount::from_sat(value_sat), script_pubkey });
        self.psbt.outputs.push(bitcoin::psbt::Output::default());
    }

    /// One more input.
    pub fn add_input(&mut self, coin: OutPoint, claimed: Option<TxOut>) {
        self.psbt.unsigned_tx.input.push(input(coin));
        self.psbt.inputs.push(bitcoin::psbt::Input { witness_utxo: claimed, ..Default::default() });
    }

    /// Signs, as its owner.
    pub async fn sign(&self, stage: &mut Stage) -> Result<v1::SignPsbtResponse> {
        let mut clients = stage.leader(crate::door::Who::Client);
        Ok(clients.payment.sign_psbt(self.request()).await.context("SignPsbt")?.into_inner())
    }
}

/// A request for these coins, for the default time.
pub fn reserve(wallet: &str, coins: &[OutPoint]) -> v1::ReserveUtxosRequest {
    let outpoints = coins.iter().map(on_wire).collect();
    v1::ReserveUtxosRequest {
        request_id: id(),
        wallet_id: wallet.to_owned(),
        what: Some(v1::reserve_utxos_request::What::Outpoints(v1::OutpointList { outpoints })),
        ..Default::default()
    }
}

/// A coin as a PSBT tells of it.
pub fn txout(coin: &v1::Utxo) -> Result<TxOut> {
    let value = Amount::from_sat(u64::try_from(coin.value_sat)?);
    Ok(TxOut { value, script_pubkey: ScriptBuf::from_bytes(coin.script.to_vec()) })
}

fn input(previous_output: OutPoint) -> TxIn {
    TxIn { previous_output, sequence: Sequence::ENABLE_RBF_NO_LOCKTIME, ..Default::default() }
}
