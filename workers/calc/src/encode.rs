//! Writing answers: columns of numbers, in the form that the client wants, straight into one buffer.

use std::borrow::Cow;

use serde_json::{Map, Value, json};

use crate::columns;
use crate::error::Refusal;
use crate::negotiate::Format;
use crate::{arrow, csv};

/// What an answer says beside its numbers.
pub(crate) struct Layout<'a> {
    pub(crate) symbol: Option<&'a str>,
    pub(crate) timeframe: Option<&'a str>,
    /// Rows of the series.
    pub(crate) count: usize,
    /// Times of the rows that are answered, where the series has times and the form has a place for them.
    pub(crate) times: Option<Cow<'a, [f64]>>,
    pub(crate) items: Vec<Item>,
}

/// The columns under one id.
pub(crate) struct Item {
    pub(crate) id: String,
    pub(crate) shape: Shape,
    /// Values of each column.
    pub(crate) rows: usize,
}

/// How the columns of an id stand in the answer.
pub(crate) enum Shape {
    /// The id is the name of one column: the older service's answers.
    Flat,
    /// Columns by name.
    Named(Point),
    /// Columns by name for each set of parameters.
    Swept(Vec<Point>),
}

/// What one computation brings.
pub(crate) struct Point {
    /// The parameters that were swept.
    pub(crate) params: Map<String, Value>,
    pub(crate) outputs: &'static [&'static str],
    pub(crate) lookback: usize,
    /// First row with a value.
    pub(crate) begin: usize,
}

impl Item {
    /// Names of its columns where columns stand side by side.
    fn names(&self) -> Vec<String> {
        let of = |point: &Point| -> Vec<String> {
            let set: Vec<String> =
                point.params.iter().map(|(name, value)| format!("{name}={}", plain(value))).collect();
            let set = if set.is_empty() { String::new() } else { format!("[{}]", set.join(",")) };
            point.outputs.iter().map(|output| format!("{}{set}.{output}", self.id)).collect()
        };
        match &self.shape {
            Shape::Flat => vec![self.id.clone()],
            Shape::Named(point) => of(point),
            Shape::Swept(points) => points.iter().flat_map(of).collect(),
        }
    }
}

/// A parameter's value as a person writes it: whole numbers without a point.
fn plain(value: &Value) -> String {
    match value {
        Value::String(word) => word.clone(),
        Value::Number(number) => number.as_f64().map_or_else(String::new, |number| number.to_string()),
        other => other.to_string(),
    }
}

/// An answer that is being written. Columns come in the order of the layout.
pub(crate) enum Encoder<'a> {
    Json(Json<'a>),
    Columns(columns::Writer),
    /// Forms that need all columns before the first byte.
    Gathered {
        format: Format,
        layout: &'a Layout<'a>,
        columns: Vec<Vec<f64>>,
        out: Vec<u8>,
    },
}

impl<'a> Encoder<'a> {
    /// Begins an answer in a buffer.
    pub(crate) fn begin(layout: &'a Layout<'a>, format: Format, out: Vec<u8>) -> Result<Self, Refusal> {
        if format == Format::Json {
            return Ok(Self::Json(Json::begin(layout, out)));
        }
        let rows = side_by_side(layout)?;
        if format != Format::Columns {
            return Ok(Self::Gathered { format, layout, columns: Vec::new(), out });
        }
        let times = layout.times.as_ref().map(|_| ("timestamp".to_owned(), true));
        let names = layout.items.iter().flat_map(Item::names).map(|name| (name, false));
        let names: Vec<(String, bool)> = times.into_iter().chain(names).collect();
        let mut writer = columns::Writer::begin(out, rows, &names, about(layout));
        if let Some(times) = &layout.times {
            writer.times(times);
        }
        Ok(Self::Columns(writer))
    }

    /// Appends a column: `skipped` values that are not there, then the others.
    pub(crate) fn column(&mut self, skipped: usize, values: &[f64]) {
        match self {
            Self::Json(json) => json.column(skipped, values),
            Self::Columns(writer) => writer.column(skipped, values),
            Self::Gathered { columns, .. } => {
                let mut column = vec![f64::NAN; skipped];
                column.extend_from_slice(values);
                columns.push(column);
            }
        }
    }

    /// The whole answer.
    pub(crate) fn finish(self) -> Result<Vec<u8>, Refusal> {
        match self {
            Self::Json(json) => Ok(json.finish()),
            Self::Columns(writer) => Ok(writer.finish()),
            Self::Gathered { format: Format::Csv, layout, mut columns, out } => {
                let mut names: Vec<String> = layout.items.iter().flat_map(Item::names).collect();
                let rows = columns.first().map_or(0, Vec::len);
                // The first field is never empty: readers leave lines out that are.
                let (name, first) = match &layout.times {
                    Some(times) => ("timestamp", times.to_vec()),
                    None => ("row", (layout.count - rows..layout.count).map(|row| row as f64).collect()),
                };
                names.insert(0, name.to_owned());
                columns.insert(0, first);
                Ok(csv::write(out, &names, &columns, rows))
            }
            Self::Gathered { layout, columns, out, .. } => {
                let names = layout.items.iter().flat_map(Item::names).collect();
                arrow::write(out, layout.times.as_deref(), names, columns, &about(layout))
            }
        }
    }
}

/// The length of all columns, which is one where they stand side by side.
fn side_by_side(layout: &Layout<'_>) -> Result<usize, Refusal> {
    let rows = layout.items.first().map_or(0, |item| item.rows);
    if layout.items.iter().any(|item| item.rows != rows) {
        let text = "with `reduce` = `last` every indicator is swept, or the answer is JSON";
        return Err(Refusal::Shape(text.to_owned()));
    }
    Ok(rows)
}

/// What stands beside the columns.
fn about(layout: &Layout<'_>) -> Map<String, Value> {
    let mut about = Map::new();
    for (name, text) in [("symbol", layout.symbol), ("timeframe", layout.timeframe)] {
        if let Some(text) = text {
            about.insert(name.to_owned(), text.into());
        }
    }
    about.insert("count".to_owned(), layout.count.into());
    about.insert("lookback".to_owned(), figures(layout, |point| point.lookback));
    about.insert("begin".to_owned(), figures(layout, |point| point.begin));
    about
}

/// A figure an id; a list of them where it was swept.
fn figures(layout: &Layout<'_>, of: impl Fn(&Point) -> usize) -> Value {
    let figure = |item: &Item| match &item.shape {
        Shape::Flat => None,
        Shape::Named(point) => Some((item.id.clone(), json!(of(point)))),
        Shape::Swept(points) => {
            Some((item.id.clone(), json!(points.iter().map(&of).collect::<Vec<usize>>())))
        }
    };
    Value::Object(layout.items.iter().filter_map(figure).collect())
}

/// An answer in JSON.
pub(crate) struct Json<'a> {
    layout: &'a Layout<'a>,
    out: Vec<u8>,
    /// Which item, point and output comes next.
    at: (usize, usize, usize),
}

impl<'a> Json<'a> {
    fn begin(layout: &'a Layout<'a>, mut out: Vec<u8>) -> Self {
        out.extend_from_slice(b"{\"success\":true");
        for (name, value) in [("symbol", layout.symbol), ("timeframe", layout.timeframe)] {
            if let Some(value) = value {
                key(&mut out, &mut false, name);
                text(&mut out, value);
            }
        }
        out.extend_from_slice(format!(",\"count\":{},\"indicators\":{{", layout.count).as_bytes());
        Self { layout, out, at: (0, 0, 0) }
    }

    fn column(&mut self, skipped: usize, values: &[f64]) {
        let layout = self.layout;
        let (item_at, point_at, output_at) = self.at;
        let item = &layout.items[item_at];
        let (points, is_swept): (&[Point], bool) = match &item.shape {
            Shape::Flat => (&[], false),
            Shape::Named(point) => (std::slice::from_ref(point), false),
            Shape::Swept(points) => (points, true),
        };
        let Some(point) = points.get(point_at) else {
            key(&mut self.out, &mut (item_at == 0), &item.id);
            column(&mut self.out, skipped, values);
            self.at = (item_at + 1, 0, 0);
            return;
        };
        if output_at == 0 {
            self.open(&item.id, point, is_swept);
        }
        key(&mut self.out, &mut (output_at == 0), point.outputs[output_at]);
        column(&mut self.out, skipped, values);
        self.at.2 += 1;
        if self.at.2 < point.outputs.len() {
            return;
        }
        self.out.extend_from_slice(if is_swept { b"}}" } else { b"}" });
        self.at = (item_at, point_at + 1, 0);
        if point_at + 1 == points.len() {
            self.out.extend_from_slice(if is_swept { b"]" } else { b"" });
            self.at = (item_at + 1, 0, 0);
        }
    }

    fn open(&mut self, id: &str, point: &Point, is_swept: bool) {
        let (item_at, point_at, _) = self.at;
        if point_at == 0 {
            key(&mut self.out, &mut (item_at == 0), id);
        }
        if is_swept {
            self.out.push(if point_at == 0 { b'[' } else { b',' });
            let params = json!(point.params);
            self.out.extend_from_slice(format!("{{\"params\":{params},\"outputs\":").as_bytes());
        }
        self.out.push(b'{');
    }

    fn finish(mut self) -> Vec<u8> {
        self.out.push(b'}');
        if !self.layout.items.iter().any(|item| matches!(item.shape, Shape::Flat)) {
            let lookback = figures(self.layout, |point| point.lookback);
            let begin = figures(self.layout, |point| point.begin);
            self.out.extend_from_slice(format!(",\"lookback\":{lookback},\"begin\":{begin}").as_bytes());
        }
        self.out.push(b'}');
        self.out
    }
}

/// Appends a JSON string.
pub(crate) fn text(out: &mut Vec<u8>, text: &str) {
    out.extend_from_slice(Value::from(text).to_string().as_bytes());
}

/// Appends a number; what is not finite becomes null.
pub(crate) fn number(out: &mut Vec<u8>, value: f64) {
    serde_json::to_writer(out, &value).expect("writing a number to memory does not fail");
}

/// Appends `null` × `skipped`, then the values: an array as long as the data.
fn column(out: &mut Vec<u8>, skipped: usize, values: &[f64]) {
    out.push(b'[');
    for _ in 0..skipped {
        out.extend_from_slice(b"null,");
    }
    for value in values {
        number(out, *value);
        out.push(b',');
    }
    if skipped + values.len() > 0 {
        out.pop();
    }
    out.push(b']');
}

/// Appends `"name":`, with a comma before it unless it is the first.
fn key(out: &mut Vec<u8>, first: &mut bool, name: &str) {
    if !std::mem::take(first) {
        out.push(b',');
    }
    text(out, name);
    out.push(b':');
}

/// Writes columns, behind times where there are any, in a form that holds numbers alone; JSON is its callers' own.
pub(crate) fn table(
    out: Vec<u8>,
    format: Format,
    times: Option<&[f64]>,
    names: Vec<String>,
    columns: &[&[f64]],
    about: Map<String, Value>,
) -> Result<Vec<u8>, Refusal> {
    let rows = columns.first().map_or(0, |column| column.len());
    let whole = || columns.iter().map(|column| column.to_vec());
    match format {
        Format::Columns => {
            let names = names.into_iter().map(|name| (name, false));
            let names: Vec<_> =
                times.map(|_| ("timestamp".to_owned(), true)).into_iter().chain(names).collect();
            let about = Map::from_iter([("answer".to_owned(), Value::Object(about))]);
            let mut writer = columns::Writer::begin(out, rows, &names, about);
            if let Some(times) = times {
                writer.times(times);
            }
            for column in columns {
                writer.column(0, column);
            }
            Ok(writer.finish())
        }
        Format::Arrow => arrow::write(out, times, names, whole().collect(), &about),
        Format::Csv | Format::Json => {
            let names: Vec<String> = times.map(|_| "timestamp".to_owned()).into_iter().chain(names).collect();
            let columns: Vec<Vec<f64>> = times.map(<[f64]>::to_vec).into_iter().chain(whole()).collect();
            Ok(csv::write(out, &names, &columns, rows))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_padded_and_never_hold_what_json_cannot() {
        let mut out = Vec::new();
        column(&mut out, 2, &[1.5, f64::NAN, f64::INFINITY, -0.1]);
        assert_eq!(String::from_utf8(out).unwrap(), "[null,null,1.5,null,null,-0.1]");
        let mut out = Vec::new();
        column(&mut out, 0, &[]);
        assert_eq!(out, b"[]");
    }

    fn point(params: Value) -> Point {
        let params = params.as_object().unwrap().clone();
        Point { params, outputs: &["a", "b"], lookback: 1, begin: 1 }
    }

    #[test]
    fn the_nesting_follows_the_layout() {
        let items = vec![
            Item { id: "one".to_owned(), shape: Shape::Named(point(json!({}))), rows: 2 },
            Item {
                id: "many".to_owned(),
                shape: Shape::Swept(vec![point(json!({"n": 2})), point(json!({"n": 3.5, "w": "sma"}))]),
                rows: 2,
            },
        ];
        let layout = Layout { symbol: None, timeframe: None, count: 2, times: None, items };
        let written = |format| {
            let mut encoder = Encoder::begin(&layout, format, Vec::new()).unwrap();
            for at in 0..6 {
                encoder.column(1, &[f64::from(at)]);
            }
            encoder.finish().unwrap()
        };
        let answer: Value = serde_json::from_slice(&written(Format::Json)).unwrap();
        assert_eq!(answer["indicators"]["one"], json!({"a": [null, 0.0], "b": [null, 1.0]}));
        assert_eq!(
            answer["indicators"]["many"][1],
            json!({"params": {"n": 3.5, "w": "sma"}, "outputs": {"a": [null, 4.0], "b": [null, 5.0]}})
        );
        assert_eq!(
            (&answer["lookback"], &answer["begin"]["one"]),
            (&json!({"one": 1, "many": [1, 1]}), &json!(1))
        );
        let csv = String::from_utf8(written(Format::Csv)).unwrap();
        assert_eq!(
            csv,
            "row,one.a,one.b,many[n=2].a,many[n=2].b,\"many[n=3.5,w=sma].a\",\"many[n=3.5,w=sma].b\"\r\n\
             0.0,,,,,,\r\n1.0,0.0,1.0,2.0,3.0,4.0,5.0\r\n"
        );
    }
}
