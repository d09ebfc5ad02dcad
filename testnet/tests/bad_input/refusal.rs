//! What a refusal must look like, taken from the comments of errors.proto itself.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::sync::OnceLock;

use bitcoin::OutPoint;
use onespend_proto::reason::DOMAIN;
use tonic::{Code, Status};
use tonic_types::{ErrorDetail, StatusExt};

/// What no message for people may hold: the inside of the program.
const INTERNALS: [&str; 7] = ["panicked", "unwrap", "Rejection", "Some(", "::", "please report", "tprv"];

/// What gRPC clients take by default, less the other trailers.
const MAX_TRAILER_BYTES: usize = 8 * 1024 - 256;

/// What errors.proto says of one reason.
struct Documented {
    code: Code,
    /// Keys of the metadata that are always there.
    keys: Vec<String>,
}

fn documented() -> &'static BTreeMap<String, Documented> {
    static READ: OnceLock<BTreeMap<String, Documented>> = OnceLock::new();
    READ.get_or_init(|| {
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../proto/proto/onespend/v1/errors.proto");
        let (mut reasons, mut comment) = (BTreeMap::new(), String::new());
        for line in fs::read_to_string(file).expect("errors.proto is there").lines().map(str::trim) {
            if let Some(text) = line.strip_prefix("//") {
                comment.push_str(text);
            } else if let Some(name) = line.strip_prefix("ERROR_REASON_") {
                let name = name.split(' ').next().unwrap_or_default().to_owned();
                reasons.extend(read_comment(&comment).map(|documented| (name, documented)));
                comment.clear();
            } else {
                comment.clear();
            }
        }
        assert!(reasons.len() > 50, "errors.proto is not written as this expects");
        reasons
    })
}

fn read_comment(comment: &str) -> Option<Documented> {
    let words = comment.trim_start();
    let code = match words.split(['.', ' ', ',']).next()? {
        "FAILED_PRECONDITION" => Code::FailedPrecondition,
        "ABORTED" => Code::Aborted,
        "ALREADY_EXISTS" => Code::AlreadyExists,
        "INVALID_ARGUMENT" => Code::InvalidArgument,
        "PERMISSION_DENIED" => Code::PermissionDenied,
        "NOT_FOUND" => Code::NotFound,
        "RESOURCE_EXHAUSTED" => Code::ResourceExhausted,
        "UNAVAILABLE" => Code::Unavailable,
        "UNAUTHENTICATED" => Code::Unauthenticated,
        _ => return None,
    };
    let named = words.split_once("Metadata:").map_or("", |(_, keys)| keys);
    let keys = named.split('`').skip(1).step_by(2).map(str::to_owned).collect();
    Some(Documented { code, keys })
}

/// What a caller must be told.
#[derive(Clone, Debug)]
pub struct Refusal {
    reason: String,
    fields: BTreeSet<String>,
    metadata: Vec<(String, String)>,
    outpoints: Option<BTreeSet<String>>,
    says: Vec<String>,
}

/// A reason of errors.proto. Its code and the keys of its metadata are looked up there.
pub fn refusal(reason: &str) -> Refusal {
    assert!(documented().contains_key(reason), "errors.proto does not know {reason}");
    Refusal { reason: reason.to_owned(), fields: BTreeSet::new(), metadata: vec![], outpoints: None, says: vec![] }
}

/// Of very many faults the first are named, so that the answer fits into what clients take.
pub fn too_many_to_name(reason: &str, total: usize) -> Refusal {
    match reason {
        "FIELD_INVALID" => refusal(reason).saying(&format!("{total} faults")),
        _ => refusal(reason).with("outpoints_total", total),
    }
}

/// Exactly these fields are faulty.
pub fn invalid(fields: &[&str]) -> Refusal {
    fields.iter().fold(refusal("FIELD_INVALID"), |refusal, field| refusal.field(field))
}

impl Refusal {
    /// And BadRequest names this field. Once one is given, no other may be named.
    pub fn field(mut self, field: &str) -> Self {
        self.fields.insert(field.to_owned());
        self
    }

    /// And the metadata has this value.
    #[allow(clippy::needless_pass_by_value)] // So that callers may give numbers and text alike.
    pub fn with(mut self, key: &str, value: impl ToString) -> Self {
        self.metadata.push((key.to_owned(), value.to_string()));
        self
    }

    /// And the metadata names exactly these outpoints.
    pub fn naming<'a>(mut self, outpoints: impl IntoIterator<Item = &'a OutPoint>) -> Self {
        self.outpoints = Some(outpoints.into_iter().map(ToString::to_string).collect());
        self
    }

    /// And the message has this in it.
    pub fn saying(mut self, text: &str) -> Self {
        self.says.push(text.to_owned());
        self
    }

    /// What is wrong with a status, if anything.
    pub fn fault(&self, status: &Status) -> Option<String> {
        let told = format!("{:?} {:?}", status.code(), status.message());
        self.compare(status).err().map(|why| format!("{why}; wanted {}, got {told}", self.reason))
    }

    fn compare(&self, status: &Status) -> Result<(), String> {
        let shown = details(status)?;
        let expected = documented().get(&self.reason).ok_or("not documented")?;
        ensure(shown.reason == self.reason, || format!("the reason is {}", shown.reason))?;
        ensure(status.code() == expected.code, || format!("errors.proto says {:?}", expected.code))?;
        for (key, value) in &self.metadata {
            let got = shown.metadata.get(key);
            ensure(got == Some(value), || format!("metadata {key} is {got:?}, not {value:?}"))?;
        }
        if let Some(outpoints) = &self.outpoints {
            let got: BTreeSet<String> = shown
                .metadata
                .get("outpoints")
                .into_iter()
                .flat_map(|list| list.split(','))
                .map(str::to_owned)
                .collect();
            ensure(got == *outpoints, || format!("names {got:?}, not {outpoints:?}"))?;
        }
        let named: BTreeSet<String> = shown.violations.iter().map(|(field, _)| field.clone()).collect();
        ensure(self.fields.is_empty() || named == self.fields, || format!("names {named:?}, not {:?}", self.fields))?;
        for text in &self.says {
            ensure(status.message().contains(text.as_str()), || format!("does not say {text:?}"))?;
        }
        Ok(())
    }
}

/// What is wrong with any refusal of the service, whatever its reason: its form is always the one that errors.proto
/// promises.
pub fn form_fault(status: &Status) -> Option<String> {
    let checked = details(status).and_then(|shown| {
        let known = documented().get(&shown.reason).ok_or_else(|| format!("{} is not documented", shown.reason))?;
        ensure(status.code() == known.code, || format!("{} has code {:?}", shown.reason, known.code))
    });
    checked.err().map(|why| format!("{why}: {:?} {:?}", status.code(), status.message()))
}

/// Whether it is refused for this reason.
pub fn reason_of(status: &Status) -> String {
    details(status).map_or_else(|why| format!("({why})"), |shown| shown.reason)
}

struct Shown {
    reason: String,
    metadata: BTreeMap<String, String>,
    violations: Vec<(String, String)>,
}

/// The details of a status, whose form is checked: one ErrorInfo of this service with all documented metadata, and every
/// faulty field by name where the code is INVALID_ARGUMENT.
fn details(status: &Status) -> Result<Shown, String> {
    // As headers: base64, and three characters for each byte that is not plain ASCII.
    let message: usize = status.message().bytes().map(|byte| if byte.is_ascii_graphic() { 1 } else { 3 }).sum();
    let bytes = status.details().len().div_ceil(3) * 4 + message;
    ensure(bytes <= MAX_TRAILER_BYTES, || format!("{bytes} bytes of trailers; clients take {MAX_TRAILER_BYTES}"))?;
    let details = status.check_error_details_vec().map_err(|error| format!("details that do not decode: {error}"))?;
    let mut infos = vec![];
    let mut violations = vec![];
    for detail in details {
        match detail {
            ErrorDetail::ErrorInfo(info) => infos.push(info),
            ErrorDetail::BadRequest(bad) => {
                violations.extend(bad.field_violations.into_iter().map(|one| (one.field, one.description)));
            }
            _ => {}
        }
    }
    ensure(infos.len() == 1, || format!("{} ErrorInfos instead of one", infos.len()))?;
    let info = infos.remove(0);
    ensure(info.domain == DOMAIN, || format!("domain {:?}", info.domain))?;
    let metadata: BTreeMap<String, String> = info.metadata.into_iter().collect();
    for key in documented().get(&info.reason).map(|known| known.keys.as_slice()).unwrap_or_default() {
        let there = metadata.get(key).is_some_and(|value| !value.is_empty());
        ensure(there, || format!("{} lacks the metadata {key}", info.reason))?;
    }
    if status.code() == Code::InvalidArgument {
        ensure(!violations.is_empty(), || format!("{} names no field in BadRequest", info.reason))?;
    }
    for (field, description) in &violations {
        ensure(is_field_path(field), || format!("{field:?} is no path of a field"))?;
        ensure(!description.is_empty(), || format!("{field} without a description"))?;
    }
    let texts = violations.iter().map(|(_, text)| text.as_str()).chain([status.message()]);
    ensure(!status.message().is_empty(), || "no message".to_owned())?;
    for text in texts {
        let inside = INTERNALS.iter().find(|word| text.contains(**word));
        ensure(inside.is_none(), || format!("shows the inside of the program ({inside:?}): {text}"))?;
    }
    Ok(Shown { reason: info.reason, metadata, violations })
}

/// Names, dots and positions, as in `recipients[0].address`.
fn is_field_path(field: &str) -> bool {
    let allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "_.[]".contains(c);
    field.starts_with(|c: char| c.is_ascii_lowercase()) && field.chars().all(allowed)
}

fn ensure(holds: bool, why: impl FnOnce() -> String) -> Result<(), String> {
    if holds { Ok(()) } else { Err(why()) }
}
