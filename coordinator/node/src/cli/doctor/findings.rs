//! What was found, and how it is shown.

use serde::Serialize;

use crate::cli::exit::Exit;
use crate::cli::format::counted;
use crate::cli::output::Show;
use crate::cli::table::{self, Column};

/// What a finding is about; findings are shown in this order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Area {
    /// The file.
    Configuration,
    /// `[tls]`.
    Certificates,
    /// `[[signers]]`: their keys and what they remember.
    Signers,
    /// Where the databases are.
    DataFolder,
    /// Space on it.
    Disk,
    /// `[backup]`.
    Backups,
    /// `[listen]`.
    Ports,
    /// `[[peers]]`.
    Peers,
    /// `[bitcoind]`.
    Bitcoind,
    /// Time.
    Clock,
}

impl Area {
    fn word(self) -> &'static str {
        match self {
            Self::Configuration => "configuration",
            Self::Certificates => "certificates",
            Self::Signers => "signers",
            Self::DataFolder => "data folder",
            Self::Disk => "disk",
            Self::Backups => "backups",
            Self::Ports => "ports",
            Self::Peers => "peers",
            Self::Bitcoind => "bitcoind",
            Self::Clock => "clock",
        }
    }
}

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Level {
    /// As it should be.
    Ok,
    /// The node works; somebody should look.
    Warning,
    /// The node does not start, or cannot do its work.
    Failure,
}

/// One thing that was looked at.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    area: Area,
    /// How bad it is.
    pub level: Level,
    what: String,
    remedy: Option<String>,
}

/// Collects findings.
#[derive(Debug, Default)]
pub struct Findings(Vec<Finding>);

impl Findings {
    /// All is well.
    pub fn ok(&mut self, area: Area, what: impl Into<String>) {
        self.0.push(Finding { area, level: Level::Ok, what: what.into(), remedy: None });
    }

    /// Somebody should look.
    pub fn warn(&mut self, area: Area, what: impl Into<String>, remedy: impl Into<String>) {
        self.push(area, Level::Warning, what.into(), remedy.into());
    }

    /// It cannot work.
    pub fn fail(&mut self, area: Area, what: impl Into<String>, remedy: impl Into<String>) {
        self.push(area, Level::Failure, what.into(), remedy.into());
    }

    /// Whether an area is known to be bad.
    pub fn failed(&self, area: Area) -> bool {
        self.0.iter().any(|finding| finding.area == area && finding.level == Level::Failure)
    }

    fn push(&mut self, area: Area, level: Level, what: String, remedy: String) {
        self.0.push(Finding { area, level, what, remedy: Some(remedy) });
    }
}

/// Everything that was found.
#[derive(Debug, Serialize)]
pub struct Report {
    ok: usize,
    warnings: usize,
    failures: usize,
    findings: Vec<Finding>,
}

impl Report {
    /// Of what was collected.
    pub fn of(Findings(mut findings): Findings) -> Self {
        findings.sort_by_key(|finding| finding.area);
        let count = |level| findings.iter().filter(|finding| finding.level == level).count();
        Self { ok: count(Level::Ok), warnings: count(Level::Warning), failures: count(Level::Failure), findings }
    }

    /// 0, 1 for warnings, 2 for failures.
    pub fn exit(&self) -> Exit {
        match (self.failures, self.warnings) {
            (0, 0) => Exit::Done,
            (0, _) => Exit::Refused,
            _ => Exit::Usage,
        }
    }
}

impl Show for Report {
    fn text(&self) -> String {
        let row = |finding: &Finding| {
            let level = match finding.level {
                Level::Ok => "ok",
                Level::Warning => "WARNING",
                Level::Failure => "FAILURE",
            };
            let what = match &finding.remedy {
                Some(remedy) => format!("{}\nremedy: {remedy}", finding.what),
                None => finding.what.clone(),
            };
            [level.to_owned(), finding.area.word().to_owned(), what]
        };
        let columns = [Column::Whole(""), Column::Whole(""), Column::Text("")];
        let list = table::list(columns, self.findings.iter().map(row), "nothing was looked at");
        let list = list.trim_start_matches('\n');
        let (warnings, failures) =
            (counted(self.warnings, "warning", "warnings"), counted(self.failures, "failure", "failures"));
        format!("{list}\n\n{} ok, {warnings}, {failures}", self.ok)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_worst_finding_decides() {
        let mut findings = Findings::default();
        findings.ok(Area::Disk, "space");
        assert_eq!(Report::of(findings).exit(), Exit::Done);

        let mut findings = Findings::default();
        findings.warn(Area::Clock, "late", "wait");
        findings.ok(Area::Configuration, "good");
        let report = Report::of(findings);
        assert_eq!(report.exit(), Exit::Refused);
        let text = report.text();
        assert!(text.find("good") < text.find("late"), "{text}");
        assert!(text.contains("remedy: wait") && text.ends_with("1 ok, 1 warning, 0 failures"), "{text}");

        let mut findings = Findings::default();
        findings.warn(Area::Clock, "late", "wait");
        findings.fail(Area::Disk, "full", "delete");
        assert!(findings.failed(Area::Disk) && !findings.failed(Area::Clock));
        assert_eq!(Report::of(findings).exit(), Exit::Usage);
    }
}
