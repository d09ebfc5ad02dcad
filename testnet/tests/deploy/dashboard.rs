//! What is wrong with a Grafana dashboard, as its JSON has it.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::catalogue::Catalogue;

/// In every expression: one cluster at a time.
const CLUSTER: &str = "cluster=\"$cluster\"";
/// How wide Grafana's grid is.
const GRID_COLUMNS: u64 = 24;

/// Every panel, rows too.
pub fn panels(dashboard: &Value) -> Vec<&Value> {
    dashboard["panels"].as_array().map(|panels| panels.iter().collect()).unwrap_or_default()
}

/// The expressions of a panel.
pub fn expressions(panel: &Value) -> Vec<&str> {
    let targets = panel["targets"].as_array().map(Vec::as_slice).unwrap_or_default();
    targets.iter().filter_map(|target| target["expr"].as_str()).collect()
}

pub fn faults(dashboard: &Value, catalogue: &Catalogue) -> Vec<String> {
    let mut faults = Vec::new();
    let variables = dashboard["templating"]["list"].as_array().map(Vec::as_slice).unwrap_or_default();
    for name in ["datasource", "cluster"] {
        if !variables.iter().any(|variable| variable["name"] == name) {
            faults.push(format!("there is no variable {name}"));
        }
    }
    let mut ids = BTreeSet::new();
    let mut taken = BTreeSet::new();
    for panel in panels(dashboard) {
        let title = panel["title"].as_str().unwrap_or_default();
        if !ids.insert(panel["id"].as_u64()) {
            faults.push(format!("{title}: its id is missing or taken"));
        }
        faults.extend(panel_faults(panel, catalogue).into_iter().map(|fault| format!("{title}: {fault}")));
        for cell in cells(&panel["gridPos"]) {
            if !taken.insert(cell) {
                faults.push(format!("{title}: it lies over another panel"));
                break;
            }
        }
    }
    if taken.is_empty() {
        faults.push("there is no panel".to_owned());
    }
    faults
}

fn panel_faults(panel: &Value, catalogue: &Catalogue) -> Vec<String> {
    let mut faults = Vec::new();
    let is_empty = |value: &Value| value.as_str().is_none_or(|text| text.trim().is_empty());
    let mut need = |what: &str, value: &Value| {
        if is_empty(value) {
            faults.push(format!("it has no {what}"));
        }
    };
    need("title", &panel["title"]);
    if panel["type"] == "row" {
        return faults;
    }
    need("description", &panel["description"]);
    need("unit", &panel["fieldConfig"]["defaults"]["unit"]);
    let expressions = expressions(panel);
    if expressions.is_empty() {
        faults.push("it asks for nothing".to_owned());
    }
    if panel["datasource"]["uid"] != "${datasource}" {
        faults.push("its data source is not the variable".to_owned());
    }
    for expression in expressions {
        let uses = crate::promql::uses(expression);
        let elsewhere = uses.iter().filter(|one| !one.matchers.contains(CLUSTER));
        faults.extend(elsewhere.map(|one| format!("{} is not of one cluster", one.name)));
        faults.extend(catalogue.faults(expression));
    }
    faults
}

/// The cells of the grid that a panel covers.
fn cells(place: &Value) -> Vec<(u64, u64)> {
    let [x, y, width, height] = ["x", "y", "w", "h"].map(|key| place[key].as_u64().unwrap_or(GRID_COLUMNS));
    (x..x + width).flat_map(|column| (y..y + height).map(move |row| (column, row))).collect()
}

#[test]
fn each_fault_of_a_dashboard_is_caught() {
    let catalogue = Catalogue::read("const A: &str = \"onespend_a\";\nentry(A, Kind::Gauge, U, \"a\"),\n");
    let good = serde_json::json!({
        "templating": { "list": [{ "name": "datasource" }, { "name": "cluster" }] },
        "panels": [
            { "id": 1, "type": "row", "title": "r", "gridPos": { "x": 0, "y": 0, "w": 24, "h": 1 } },
            {
                "id": 2, "type": "timeseries", "title": "t", "description": "d", "datasource": { "uid": "${datasource}" },
                "gridPos": { "x": 0, "y": 1, "w": 8, "h": 8 }, "fieldConfig": { "defaults": { "unit": "s" } },
                "targets": [{ "expr": "max by (cluster) (onespend_a{cluster=\"$cluster\"})" }]
            }
        ]
    });
    assert_eq!(faults(&good, &catalogue), Vec::<String>::new());
    let spoilt = |pointer: &str, value: Value| {
        let mut bad = good.clone();
        *bad.pointer_mut(pointer).unwrap() = value;
        faults(&bad, &catalogue).len()
    };
    let empty = || Value::from("");
    assert_eq!(spoilt("/panels/1/title", empty()), 1);
    assert_eq!(spoilt("/panels/0/title", empty()), 1);
    assert_eq!(spoilt("/panels/1/description", Value::Null), 1);
    assert_eq!(spoilt("/panels/1/fieldConfig/defaults/unit", empty()), 1);
    assert_eq!(spoilt("/panels/1/datasource/uid", Value::from("prometheus")), 1);
    assert_eq!(spoilt("/panels/1/id", Value::from(1)), 1);
    assert_eq!(spoilt("/panels/1/gridPos/y", Value::from(0)), 1);
    assert_eq!(spoilt("/panels/1/targets", Value::Null), 1);
    assert_eq!(spoilt("/templating/list/1/name", Value::from("node")), 1);
    let expression = "/panels/1/targets/0/expr";
    assert_eq!(spoilt(expression, Value::from("max by (cluster) (onespend_a)")), 1, "of every cluster");
    assert_eq!(spoilt(expression, Value::from("sum by (cluster) (onespend_a{cluster=\"$cluster\"})")), 1);
    assert_eq!(spoilt(expression, Value::from("max by (cluster) (onespend_b{cluster=\"$cluster\"})")), 1);
    assert_eq!(spoilt("/panels", Value::Null), 1);
}
