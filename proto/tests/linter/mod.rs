//! A small linter over descriptors with source info. Rules are named as in buf's documentation.

mod contract;

use std::collections::{BTreeMap, BTreeSet};

use prost_types::{
    DescriptorProto, EnumDescriptorProto, FileDescriptorProto, FileDescriptorSet, ServiceDescriptorProto,
};

/// What is wrong, one line each.
pub type Faults = Vec<String>;

// Field numbers of descriptor.proto, of which source info's paths consist.
const FILE_PACKAGE: i32 = 2;
const FILE_MESSAGE: i32 = 4;
const FILE_ENUM: i32 = 5;
const FILE_SERVICE: i32 = 6;
const MESSAGE_FIELD: i32 = 2;
const MESSAGE_NESTED: i32 = 3;
const MESSAGE_ENUM: i32 = 4;
const MESSAGE_ONEOF: i32 = 8;
const ENUM_VALUE: i32 = 2;
const SERVICE_METHOD: i32 = 2;

/// Checks every file whose package begins with `onespend.`.
pub fn lint(files: &FileDescriptorSet) -> Faults {
    let own: Vec<_> = files.file.iter().filter(|file| file.package().starts_with("onespend.")).collect();
    let mut faults = Faults::new();
    for file in &own {
        FileLint::new(file, files, &mut faults).run();
    }
    check_messages_of_rpcs_are_unique(&own, &mut faults);
    contract::check(&own, &mut faults);
    faults
}

/// RPC_REQUEST_RESPONSE_UNIQUE.
fn check_messages_of_rpcs_are_unique(files: &[&FileDescriptorProto], faults: &mut Faults) {
    let mut seen = BTreeSet::new();
    for service in files.iter().flat_map(|file| &file.service) {
        for method in &service.method {
            for used in [method.input_type(), method.output_type()] {
                if !seen.insert(used.to_owned()) {
                    let (service, method, used) = (service.name(), method.name(), last_part(used));
                    faults.push(format!("{service}.{method}: message {used} is used by another rpc too"));
                }
            }
        }
    }
}

struct FileLint<'a> {
    file: &'a FileDescriptorProto,
    all: &'a FileDescriptorSet,
    comments: BTreeMap<&'a [i32], &'a str>,
    faults: &'a mut Faults,
}

impl<'a> FileLint<'a> {
    fn new(file: &'a FileDescriptorProto, all: &'a FileDescriptorSet, faults: &'a mut Faults) -> Self {
        let locations = file.source_code_info.iter().flat_map(|info| &info.location);
        let comments = locations.map(|at| (at.path.as_slice(), at.leading_comments())).collect();
        Self { file, all, comments, faults }
    }

    fn run(mut self) {
        let file = self.file;
        self.check_file();
        for (at, message) in file.message_type.iter().enumerate() {
            self.check_message(message, message.name(), &[FILE_MESSAGE, index(at)]);
        }
        for (at, item) in file.enum_type.iter().enumerate() {
            self.check_enum(item, item.name(), &[FILE_ENUM, index(at)]);
        }
        for (at, service) in file.service.iter().enumerate() {
            self.check_service(service, &[FILE_SERVICE, index(at)]);
        }
    }

    fn fault(&mut self, subject: &str, what: &str) {
        self.faults.push(format!("{subject}: {what}"));
    }

    /// COMMENT_MESSAGE, COMMENT_FIELD, COMMENT_ENUM, ...: a leading comment that ends as a sentence.
    fn check_comment(&mut self, subject: &str, path: &[i32]) {
        match self.comments.get(path).map(|text| text.trim()) {
            None | Some("") => self.fault(subject, "no comment"),
            Some(text) if !text.ends_with(['.', '?']) => {
                self.fault(subject, "comment is not a sentence");
            }
            Some(_) => {}
        }
    }

    fn check_name(&mut self, subject: &str, name: &str, case: Case) {
        if !case.holds(name) {
            self.fault(subject, &format!("name is not {}", case.name()));
        }
    }

    /// PACKAGE_DIRECTORY_MATCH, PACKAGE_VERSION_SUFFIX, FILE_LOWER_SNAKE_CASE, SYNTAX_SPECIFIED, IMPORT_USED,
    /// IMPORT_NO_PUBLIC.
    fn check_file(&mut self) {
        let (path, package) = (self.file.name(), self.file.package());
        let (folder, name) = path.rsplit_once('/').unwrap_or(("", path));
        let wanted = package.replace('.', "/");
        if folder != wanted {
            self.fault(path, &format!("package {package} belongs into folder {wanted}"));
        }
        if last_part(package).strip_prefix('v').is_none_or(|version| version.parse::<u32>().is_err()) {
            self.fault(path, "package does not end in a version");
        }
        self.check_name_of_file(path, name);
        if self.file.syntax() != "proto3" {
            self.fault(path, "syntax is not proto3");
        }
        if !self.file.public_dependency.is_empty() {
            self.fault(path, "has a public import");
        }
        for import in unused_imports(self.file, self.all) {
            self.fault(path, &format!("import {import} is not used"));
        }
        if self.comments.get([FILE_PACKAGE].as_slice()).is_none_or(|text| text.trim().is_empty()) {
            self.fault(path, "no comment on the package");
        }
    }

    fn check_name_of_file(&mut self, path: &str, name: &str) {
        if !Case::LowerSnake.holds(name.trim_end_matches(".proto")) {
            self.fault(path, "file name is not lower_snake_case");
        }
    }

    fn check_message(&mut self, message: &DescriptorProto, name: &str, path: &[i32]) {
        // The entry type that a map field makes is written by nobody.
        if message.options.as_ref().is_some_and(prost_types::MessageOptions::map_entry) {
            return;
        }
        self.check_name(name, message.name(), Case::Pascal);
        self.check_comment(name, path);
        for (at, field) in message.field.iter().enumerate() {
            let subject = format!("{name}.{}", field.name());
            self.check_name(&subject, field.name(), Case::LowerSnake);
            self.check_comment(&subject, &join(path, MESSAGE_FIELD, at));
        }
        for (at, oneof) in message.oneof_decl.iter().enumerate() {
            // `optional` makes a oneof whose name begins with an underscore.
            if !oneof.name().starts_with('_') {
                let subject = format!("{name}.{}", oneof.name());
                self.check_name(&subject, oneof.name(), Case::LowerSnake);
                self.check_comment(&subject, &join(path, MESSAGE_ONEOF, at));
            }
        }
        for (at, nested) in message.nested_type.iter().enumerate() {
            let subject = format!("{name}.{}", nested.name());
            self.check_message(nested, &subject, &join(path, MESSAGE_NESTED, at));
        }
        for (at, nested) in message.enum_type.iter().enumerate() {
            let subject = format!("{name}.{}", nested.name());
            self.check_enum(nested, &subject, &join(path, MESSAGE_ENUM, at));
        }
    }

    /// ENUM_PASCAL_CASE, ENUM_VALUE_UPPER_SNAKE_CASE, ENUM_VALUE_PREFIX, ENUM_ZERO_VALUE_SUFFIX, ENUM_NO_ALLOW_ALIAS.
    fn check_enum(&mut self, item: &EnumDescriptorProto, name: &str, path: &[i32]) {
        self.check_name(name, item.name(), Case::Pascal);
        self.check_comment(name, path);
        if item.options.as_ref().is_some_and(prost_types::EnumOptions::allow_alias) {
            self.fault(name, "allows aliases");
        }
        let prefix = format!("{}_", upper_snake(item.name()));
        for (at, value) in item.value.iter().enumerate() {
            let subject = format!("{name}.{}", value.name());
            self.check_name(&subject, value.name(), Case::UpperSnake);
            self.check_comment(&subject, &join(path, ENUM_VALUE, at));
            if !value.name().starts_with(&prefix) {
                self.fault(&subject, &format!("does not begin with {prefix}"));
            }
            if value.number() == 0 && value.name() != format!("{prefix}UNSPECIFIED") {
                self.fault(&subject, &format!("the zero value must be {prefix}UNSPECIFIED"));
            }
        }
    }

    /// SERVICE_PASCAL_CASE, SERVICE_SUFFIX, RPC_PASCAL_CASE, RPC_REQUEST_STANDARD_NAME, RPC_RESPONSE_STANDARD_NAME.
    fn check_service(&mut self, service: &ServiceDescriptorProto, path: &[i32]) {
        let name = service.name();
        self.check_name(name, name, Case::Pascal);
        self.check_comment(name, path);
        if !name.ends_with("Service") {
            self.fault(name, "name does not end in Service");
        }
        for (at, method) in service.method.iter().enumerate() {
            let subject = format!("{name}.{}", method.name());
            self.check_name(&subject, method.name(), Case::Pascal);
            self.check_comment(&subject, &join(path, SERVICE_METHOD, at));
            let parts = [("request", method.input_type(), "Request"), ("response", method.output_type(), "Response")];
            for (part, used, suffix) in parts {
                let wanted = format!("{}{suffix}", method.name());
                if last_part(used) != wanted {
                    self.fault(&subject, &format!("{part} must be {wanted}"));
                }
            }
        }
    }
}

#[derive(Clone, Copy)]
enum Case {
    Pascal,
    LowerSnake,
    UpperSnake,
}

impl Case {
    fn name(self) -> &'static str {
        match self {
            Self::Pascal => "PascalCase",
            Self::LowerSnake => "lower_snake_case",
            Self::UpperSnake => "UPPER_SNAKE_CASE",
        }
    }

    fn holds(self, name: &str) -> bool {
        let snake = |letter: fn(&u8) -> bool| {
            !name.contains("__") && name.bytes().all(|b| letter(&b) || b.is_ascii_digit() || b == b'_')
        };
        match self {
            Self::Pascal => name.starts_with(|c: char| c.is_ascii_uppercase()) && !name.contains('_'),
            Self::LowerSnake => snake(u8::is_ascii_lowercase),
            Self::UpperSnake => snake(u8::is_ascii_uppercase),
        }
    }
}

fn upper_snake(pascal: &str) -> String {
    let mut snake = String::new();
    for letter in pascal.chars() {
        if letter.is_ascii_uppercase() && !snake.is_empty() {
            snake.push('_');
        }
        snake.push(letter.to_ascii_uppercase());
    }
    snake
}

fn last_part(dotted: &str) -> &str {
    dotted.rsplit('.').next().unwrap_or(dotted)
}

fn index(at: usize) -> i32 {
    i32::try_from(at).unwrap()
}

fn join(path: &[i32], field: i32, at: usize) -> Vec<i32> {
    [path, &[field, index(at)]].concat()
}

/// Imports of which no type is named.
fn unused_imports(file: &FileDescriptorProto, all: &FileDescriptorSet) -> Vec<String> {
    let mut used = BTreeSet::new();
    for message in &file.message_type {
        collect_types(message, &mut used);
    }
    let is_unused = |import: &&String| {
        let imported = all.file.iter().find(|other| other.name() == import.as_str());
        imported.is_some_and(|other| defined_types(other).is_disjoint(&used))
    };
    file.dependency.iter().filter(is_unused).cloned().collect()
}

/// The full names of a file's outermost types.
fn defined_types(file: &FileDescriptorProto) -> BTreeSet<String> {
    let messages = file.message_type.iter().map(DescriptorProto::name);
    let enums = file.enum_type.iter().map(EnumDescriptorProto::name);
    messages.chain(enums).map(|name| format!(".{}.{name}", file.package())).collect()
}

fn collect_types(message: &DescriptorProto, used: &mut BTreeSet<String>) {
    used.extend(message.field.iter().map(|field| field.type_name().to_owned()));
    for nested in &message.nested_type {
        collect_types(nested, used);
    }
}
