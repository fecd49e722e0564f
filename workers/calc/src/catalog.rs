//! `GET /calculations/catalog`: every indicator as a client needs to know it before asking.

use serde_json::{Map, Value as Json, json};
use sluice_calc::{Column, Compat, Entry, Indicator, Value, catalog};

use crate::signals;

/// The whole catalogue.
pub(crate) fn answer() -> Json {
    let listed: Vec<Json> = catalog::entries().map(describe).collect();
    json!({"count": listed.len(), "indicators": listed})
}

fn describe(entry: &'static Entry) -> Json {
    let columns: Vec<&str> = entry.columns.iter().map(|column| Column::name(*column)).collect();
    // The defaults of every entry are among what it allows; a test of the kernels sees to that.
    let lookback = by_compat(|compat| {
        Indicator::parse(entry.name, compat, &[]).map_or(Json::Null, |indicator| json!(indicator.lookback()))
    });
    let usual = Indicator::parse(entry.name, Compat::TaLib, &[]);
    let shift: Vec<isize> = usual
        .iter()
        .flat_map(|indicator| (0..entry.outputs.len()).map(|output| indicator.shift(output)))
        .collect();
    json!({
        "name": entry.name, "aliases": entry.aliases, "summary": entry.summary, "columns": columns,
        "parameters": parameters(entry), "outputs": entry.outputs, "lookback": lookback, "shift": shift,
    })
}

/// Each parameter with its range, its default, and its defaults under all conventions.
fn parameters(entry: &Entry) -> Vec<Json> {
    let default = |value: Value<'_>| match value {
        Value::Number(number) => json!(number),
        Value::Word(word) => json!(word),
    };
    let mut described = signals::describe(entry.params);
    for (param, said) in entry.params.iter().zip(&mut described) {
        said["defaults"] = by_compat(|compat| default(param.default_under(compat)));
    }
    described
}

fn by_compat(of: impl Fn(Compat) -> Json) -> Json {
    Json::Object(
        Compat::ALL.iter().map(|compat| (compat.name().to_owned(), of(*compat))).collect::<Map<_, _>>(),
    )
}
