//! What every public rpc promises beyond style: a mutation carries a request id and says where in the log it stands;
//! a read says what it was based on; a list has pages.

use prost_types::{DescriptorProto, FileDescriptorProto, MethodDescriptorProto};

use super::{Faults, last_part};

/// Reads begin with one of these; every other rpc changes something.
const READS: [&str; 4] = ["Get", "List", "Watch", "Estimate"];

/// Reads that answer for one node and not for the replicated state, or are linearizable always, so there is no
/// consistency to choose.
const WITHOUT_CONSISTENCY: [&str; 5] = ["EstimateFee", "GetNodeViews", "GetStatus", "GetHistory", "GetPayment"];

/// Reads whose answer carries its place in the log in fields of its own.
const WITHOUT_READ_INFO: [&str; 4] = ["GetStatus", "GetHistory", "WatchPayments", "WatchReservations"];

pub fn check(files: &[&FileDescriptorProto], faults: &mut Faults) {
    let public: Vec<_> = files.iter().filter(|file| file.package() == "onespend.v1").collect();
    let messages: Vec<_> = public.iter().flat_map(|file| &file.message_type).collect();
    for service in public.iter().flat_map(|file| &file.service) {
        for method in &service.method {
            check_method(&messages, service.name(), method, faults);
        }
    }
}

fn check_method(messages: &[&DescriptorProto], service: &str, method: &MethodDescriptorProto, faults: &mut Faults) {
    let name = method.name();
    let (request, response) = promised(name);
    for (used, fields) in [(method.input_type(), request), (method.output_type(), response)] {
        let used = last_part(used);
        let Some(message) = messages.iter().find(|message| message.name() == used) else {
            continue;
        };
        for field in fields {
            if !message.field.iter().any(|own| own.name() == field) {
                faults.push(format!("{service}.{name}: {used} lacks {field}"));
            }
        }
    }
}

/// The fields that request and response must have.
fn promised(name: &str) -> (Vec<&'static str>, Vec<&'static str>) {
    let reads = READS.iter().any(|verb| name.starts_with(verb));
    if !reads {
        return (vec!["request_id"], vec!["applied_index", "term"]);
    }
    let (mut request, mut response) = (vec![], vec![]);
    if name.starts_with("List") {
        request.extend(["page_size", "page_token"]);
        response.push("next_page_token");
    }
    if !WITHOUT_CONSISTENCY.contains(&name) && !name.starts_with("Watch") {
        request.push("consistency");
    }
    if !WITHOUT_READ_INFO.contains(&name) {
        response.push("read_info");
    }
    (request, response)
}
