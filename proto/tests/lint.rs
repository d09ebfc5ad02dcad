//! Keeps the `.proto` files in shape: everything is commented, the rules of buf's STANDARD category hold, and every
//! rpc keeps the promises of the interface (request ids, log positions, pages).

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod linter;

use linter::{Faults, lint};
use prost::Message as _;
use prost_types::FileDescriptorSet;

fn own_files() -> FileDescriptorSet {
    FileDescriptorSet::decode(onespend_proto::FILE_DESCRIPTOR_SET).unwrap()
}

fn lint_text(path: &str, text: &str) -> Faults {
    let root = tempfile::tempdir().unwrap();
    let file = root.path().join(path);
    std::fs::create_dir_all(file.parent().unwrap()).unwrap();
    std::fs::write(&file, text).unwrap();
    lint(&protox::compile([path], [root.path()]).unwrap())
}

#[test]
fn the_interface_is_commented_and_in_style() {
    let faults = lint(&own_files());
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn the_lint_sees_both_packages_whole() {
    let files = own_files();
    let own: Vec<_> = files.file.iter().filter(|file| file.package().starts_with("onespend.")).collect();
    assert_eq!(own.len(), 8);
    let rpcs: usize = own.iter().flat_map(|file| &file.service).map(|service| service.method.len()).sum();
    assert_eq!(rpcs, 44 + 6, "44 public rpcs and 6 between nodes");
}

#[test]
fn every_fault_of_a_bad_file_is_named() {
    let bad = r#"
        syntax = "proto3";
        package onespend.v1;
        import "google/protobuf/duration.proto";
        message bad_name { string BadField = 1; oneof Which { string a = 2; } }
        enum Colour { RED = 0; COLOUR_green = 1; }
        service Things { rpc doIt(bad_name) returns (bad_name); }
    "#;
    let faults = lint_text("onespend/v2/BadFile.proto", bad);
    for expected in [
        "onespend/v2/BadFile.proto: package onespend.v1 belongs into folder onespend/v1",
        "onespend/v2/BadFile.proto: file name is not lower_snake_case",
        "onespend/v2/BadFile.proto: import google/protobuf/duration.proto is not used",
        "onespend/v2/BadFile.proto: no comment on the package",
        "bad_name: name is not PascalCase",
        "bad_name: no comment",
        "bad_name.BadField: name is not lower_snake_case",
        "bad_name.BadField: no comment",
        "bad_name.Which: name is not lower_snake_case",
        "bad_name.Which: no comment",
        "Colour: no comment",
        "Colour.RED: does not begin with COLOUR_",
        "Colour.RED: the zero value must be COLOUR_UNSPECIFIED",
        "Colour.COLOUR_green: name is not UPPER_SNAKE_CASE",
        "Things: name does not end in Service",
        "Things: no comment",
        "Things.doIt: name is not PascalCase",
        "Things.doIt: no comment",
        "Things.doIt: request must be doItRequest",
        "Things.doIt: response must be doItResponse",
        "Things.doIt: message bad_name is used by another rpc too",
    ] {
        assert!(faults.iter().any(|fault| fault == expected), "not found: {expected}\nin {faults:#?}");
    }
}

#[test]
fn a_mutation_without_its_promises_is_a_fault() {
    let bad = r#"
        syntax = "proto3";
        // A package.
        package onespend.v1;
        // A service.
        service ThingService {
            // Changes something.
            rpc MakeThing(MakeThingRequest) returns (MakeThingResponse);
            // Lists things.
            rpc ListThings(ListThingsRequest) returns (ListThingsResponse);
        }
        // Asks for it.
        message MakeThingRequest {}
        // Answers.
        message MakeThingResponse {}
        // Asks for them.
        message ListThingsRequest {}
        // Answers.
        message ListThingsResponse {}
    "#;
    let expected = [
        "ThingService.MakeThing: MakeThingRequest lacks request_id",
        "ThingService.MakeThing: MakeThingResponse lacks applied_index",
        "ThingService.MakeThing: MakeThingResponse lacks term",
        "ThingService.ListThings: ListThingsRequest lacks page_size",
        "ThingService.ListThings: ListThingsRequest lacks page_token",
        "ThingService.ListThings: ListThingsRequest lacks consistency",
        "ThingService.ListThings: ListThingsResponse lacks next_page_token",
        "ThingService.ListThings: ListThingsResponse lacks read_info",
    ];
    assert_eq!(lint_text("onespend/v1/thing.proto", bad), expected);
}

#[test]
fn the_guide_names_every_rpc_and_every_reason() {
    let guide = include_str!("../../docs/src/api.md");
    let files = own_files();
    let public = files.file.iter().filter(|file| file.package() == "onespend.v1");
    let rpcs = public
        .flat_map(|file| &file.service)
        .flat_map(|service| &service.method)
        .map(prost_types::MethodDescriptorProto::name);
    for name in rpcs.chain(onespend_proto::reason::ALL) {
        assert!(guide.contains(&format!("`{name}`")), "docs/src/api.md does not name {name}");
    }
}
