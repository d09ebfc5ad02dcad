//! What the data port says about itself: the services that it serves. The others are in the same `.proto` package, and a
//! tool that was shown them would call them where nobody answers.

use onespend_proto::FILE_DESCRIPTOR_SET;
use onespend_proto::v1::{
    chain_service_server, payment_service_server, reservation_service_server, wallet_service_server,
};
use prost::{DecodeError, Message as _};
use prost_types::{FileDescriptorProto, FileDescriptorSet};

const SERVED: [&str; 4] = [
    wallet_service_server::SERVICE_NAME,
    reservation_service_server::SERVICE_NAME,
    payment_service_server::SERVICE_NAME,
    chain_service_server::SERVICE_NAME,
];

/// The files that describe the data port, with their comments.
///
/// # Errors
/// The generated set cannot be read; a test reads it.
pub(super) fn shown() -> Result<FileDescriptorSet, DecodeError> {
    let mut set = FileDescriptorSet::decode(FILE_DESCRIPTOR_SET)?;
    set.file.retain(|file| services(file).all(|service| SERVED.contains(&service.as_str())));
    Ok(set)
}

/// The full names of a file's services.
fn services(file: &FileDescriptorProto) -> impl Iterator<Item = String> {
    file.service.iter().map(|service| format!("{}.{}", file.package(), service.name()))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn the_services_of_the_data_port_are_shown_and_no_others() {
        let set = shown().unwrap();
        let found: BTreeSet<String> = set.file.iter().flat_map(services).collect();
        assert_eq!(found, SERVED.map(str::to_owned).into());
    }

    #[test]
    fn what_is_shown_is_whole() {
        let set = shown().unwrap();
        let names: BTreeSet<&str> = set.file.iter().map(FileDescriptorProto::name).collect();
        for file in &set.file {
            let missing = file.dependency.iter().find(|wanted| !names.contains(wanted.as_str()));
            assert_eq!(missing, None, "{} needs it", file.name());
            assert!(!file.package().starts_with("onespend") || file.source_code_info.is_some(), "{}", file.name());
        }
    }
}
