//! Bodies and answers in every form.

use serde_json::{Value, json};

use crate::world::{Answer, User, World};

const PATH: &str = "/calculations/indicators";
const COLUMNS: &str = "application/x-sluice-columns";
const ARROW: &str = "application/vnd.apache.arrow.stream";

/// Closing prices whose every bit counts.
fn closes() -> Vec<f64> {
    (0..50).map(|at| 100.0 + f64::from(at * 7 % 13) / 3.0).collect()
}

fn request() -> Value {
    json!({"symbol": "X", "indicators": [{"name": "sma", "period": 3}, {"name": "bbands", "period": 5, "id": "b"}]})
}

async fn send(user: User<'_>, path: &str, kind: &str, accept: &str, body: &[u8]) -> Answer {
    user.send("POST", path, &format!("content-type: {kind}\r\naccept: {accept}\r\n"), body).await
}

/// A body of columns.
fn columns(closes: &[f64]) -> Vec<u8> {
    let header = json!({"rows": closes.len(), "columns": [{"name": "close", "type": "f64", "offset": 0}],
        "request": request()});
    let mut header = header.to_string();
    while !(12 + header.len()).is_multiple_of(64) {
        header.push(' ');
    }
    let length = (header.len() as u32).to_le_bytes();
    let values = closes.iter().flat_map(|close| close.to_le_bytes());
    [b"SLCOLS1\n".as_slice(), &length, header.as_bytes(), &values.collect::<Vec<u8>>()].concat()
}

/// The bits of each column of an answer in columns, NaN and null as one.
fn of_columns(body: &[u8]) -> Vec<(String, Vec<u64>)> {
    let length = u32::from_le_bytes(body[8..12].try_into().unwrap()) as usize;
    let header: Value = serde_json::from_slice(&body[12..12 + length]).unwrap();
    let rows = header["rows"].as_u64().unwrap() as usize;
    let column = |place: &Value| {
        let begin = 12 + length + place["offset"].as_u64().unwrap() as usize;
        let values =
            body[begin..begin + 8 * rows].as_chunks::<8>().0.iter().map(|bytes| f64::from_le_bytes(*bytes));
        (place["name"].as_str().unwrap().to_owned(), values.map(f64::to_bits).collect())
    };
    header["columns"].as_array().unwrap().iter().map(column).collect()
}

fn of_json(answer: &Value) -> Vec<(String, Vec<u64>)> {
    let bits = |value: &Value| value.as_f64().unwrap_or(f64::NAN).to_bits();
    [("sma", "value"), ("b", "upper"), ("b", "middle"), ("b", "lower")]
        .map(|(id, output)| {
            let values = answer["indicators"][id][output].as_array().unwrap();
            (format!("{id}.{output}"), values.iter().map(bits).collect())
        })
        .to_vec()
}

#[tokio::test]
async fn every_form_goes_in_and_out_with_the_same_bits() {
    let world = World::new();
    let user = world.reader();
    let closes = closes();
    let mut body = request();
    body["data"] = json!({"close": closes});
    let expected = of_json(&user.post(PATH, &body).await.ok());

    let csv: String = closes.iter().map(|close| format!("{close}\n")).collect();
    let query =
        request().to_string().replace('"', "%22").replace(' ', "").replace('{', "%7B").replace('}', "%7D");
    let query = query.replace('[', "%5B").replace(']', "%5D");
    let path = format!("{PATH}?request={query}");
    let (arrow, binary) = {
        // What the worker writes it can read: an answer is a body with other names.
        let echo = json!({"data": {"close": closes}, "indicators": [{"name": "sma", "period": 2}]});
        let answer =
            user.send("POST", PATH, &format!("accept: {ARROW}\r\n"), echo.to_string().as_bytes()).await;
        assert_eq!((answer.status, answer.header("content-type")), (200, Some(ARROW)), "{}", answer.text());
        (answer.body, columns(&closes))
    };
    assert!(arrow.starts_with(b"\xff\xff\xff\xff"));

    for (kind, path, body) in [
        ("application/json", PATH, body.to_string().into_bytes()),
        (COLUMNS, PATH, binary),
        ("text/csv; charset=utf-8", path.as_str(), format!("Close\n{csv}").into_bytes()),
    ] {
        let answer = send(user, path, kind, "application/json", &body).await.ok();
        assert_eq!((answer["symbol"].as_str(), of_json(&answer)), (Some("X"), expected.clone()), "{kind}");
        let answer = send(user, path, kind, COLUMNS, &body).await;
        assert_eq!((answer.status, answer.header("content-type")), (200, Some(COLUMNS)), "{kind}");
        assert_eq!(of_columns(&answer.body), expected, "{kind}");
        let answer = send(user, path, kind, "text/csv", &body).await;
        assert_eq!((answer.status, answer.header("content-type")), (200, Some("text/csv")), "{kind}");
        let text = answer.text();
        let mut lines = text.lines();
        assert_eq!(lines.next(), Some("row,sma.value,b.upper,b.middle,b.lower"));
        for (row, line) in lines.enumerate() {
            let values: Vec<u64> = line
                .split(',')
                .skip(1)
                .map(|field| if field.is_empty() { f64::NAN } else { field.parse().unwrap() }.to_bits())
                .collect();
            let wanted: Vec<u64> = expected.iter().map(|(_, values)| values[row]).collect();
            assert_eq!(values, wanted, "{kind} row {row}");
        }
    }
    assert!(
        world.metric("sluice_calc_transport_bytes_total{format=\"columns\",direction=\"out\"}").await > 0.0
    );
}

#[tokio::test]
async fn forms_that_are_not_there_are_named() {
    let world = World::new();
    let user = world.reader();
    let body = json!({"data": {"close": [1.0, 2.0]}, "indicators": []}).to_string();
    let answer = send(user, PATH, "application/xml", "*/*", body.as_bytes()).await;
    let problem = answer.problem(415);
    assert!(problem["detail"].as_str().unwrap().contains(COLUMNS), "{problem}");
    let answer = send(user, PATH, "application/json", "text/html", body.as_bytes()).await;
    let problem = answer.problem(406);
    assert_eq!(problem["code"], "not_acceptable");
    assert!(problem["detail"].as_str().unwrap().contains(ARROW), "{problem}");
    // The body's own wish counts where the client takes anything.
    let wish =
        json!({"data": {"close": [1.0, 2.0]}, "indicators": [{"name": "sma", "period": 2}], "format": "csv"});
    let answer = send(user, PATH, "application/json", "*/*", wish.to_string().as_bytes()).await;
    assert_eq!(
        (answer.header("content-type"), answer.text().as_str()),
        (Some("text/csv"), "row,sma.value\r\n0.0,\r\n1.0,1.5\r\n")
    );
    for (path, kind) in [("?request=%7B%7D", "application/json"), ("?request=x", "text/csv")] {
        let answer = send(user, &format!("{PATH}{path}"), kind, "*/*", b"close\n1\n").await;
        assert_eq!(answer.status, 400, "{path} {kind}: {}", answer.text());
    }
}

#[tokio::test]
async fn broken_bodies_are_refused_and_say_where() {
    let world = World::with(|config| config.calc.rows = 60);
    let user = world.reader();
    let mut cut = columns(&closes());
    cut.truncate(cut.len() - 8);
    assert_eq!(send(user, PATH, COLUMNS, "*/*", &cut).await.code(422), "unprocessable");
    assert_eq!(send(user, PATH, COLUMNS, "*/*", &columns(&[1.0; 61])).await.code(422), "unprocessable");
    assert_eq!(send(user, PATH, ARROW, "*/*", b"no stream").await.code(422), "unprocessable");
    let query = "?request=%7B%22indicators%22:%5B%22sma%22%5D%7D";
    let problem =
        send(user, &format!("{PATH}{query}"), "text/csv", "*/*", b"close\n1\nx\n").await.problem(422);
    assert_eq!((problem["code"].as_str(), problem["index"].as_u64()), (Some("bad_series"), Some(1)));
    let mut lost = columns(&closes());
    let last = lost.len() - 8;
    lost[last..].copy_from_slice(&f64::NAN.to_le_bytes());
    let problem = send(user, PATH, COLUMNS, "*/*", &lost).await.problem(422);
    assert_eq!(problem["index"], 49);
}

/// Candles of a walk by the same rule each time, as rows.
fn rows() -> Vec<Vec<f64>> {
    let price = |at: usize| 100.0 + 10.0 * (at as f64 / 7.0).sin();
    (0..200)
        .map(|at| vec![at as f64 * 6e4, price(at), price(at) + 2.0, price(at) - 2.0, price(at) + 1.0, 9.0])
        .collect()
}

#[tokio::test]
async fn signals_and_figures_take_bars_of_any_form() {
    let world = World::new();
    let user = world.reader();
    let rows = rows();
    let text = |row: &Vec<f64>| row.iter().map(f64::to_string).collect::<Vec<_>>().join(",");
    let lines: Vec<String> = rows.iter().map(text).collect();
    let csv = format!("timestamp,open,high,low,close,volume\n{}\n", lines.join("\n"));
    let wish = json!({"strategy_config": {"name": "rsi", "period": 5}, "output": "full"});
    let mut body = wish.clone();
    body["data"] = json!(rows);
    let told = user.post("/calculations/signals", &body).await.ok();
    assert!(told["count"].as_u64().unwrap() > 10, "{told}");
    let query = "?request=%7B%22strategy_config%22:%7B%22name%22:%22rsi%22,%22period%22:5%7D,%22output%22:%22full%22%7D";
    let path = format!("/calculations/signals{query}");
    assert_eq!(send(user, &path, "text/csv", "application/json", csv.as_bytes()).await.ok(), told);

    let table = send(user, &path, "text/csv", "text/csv", csv.as_bytes()).await;
    let table = table.text();
    let mut lines = table.lines();
    assert_eq!(lines.next(), Some("timestamp,action,confidence,price,valid,indicators.rsi"));
    for (line, signal) in lines.by_ref().zip(told["signals"].as_array().unwrap()) {
        let found: Vec<f64> = line.split(',').map(|field| field.parse().unwrap_or(f64::NAN)).collect();
        let action = match signal["action"].as_str() {
            Some("BUY") => 1.0,
            Some("SELL") => -1.0,
            _ => 0.0,
        };
        let number = |name: &str| signal[name].as_f64().unwrap();
        let valid = f64::from(u8::from(signal["validation"]["ok"] == true));
        let rsi = signal["indicators"]["rsi"].as_f64().unwrap();
        assert_eq!(found, [number("timestamp"), action, number("confidence"), number("price"), valid, rsi]);
    }
    assert_eq!((lines.count(), table.lines().count() as u64 - 1), (0, told["count"].as_u64().unwrap()));
    let columns = of_columns(&send(user, &path, "text/csv", COLUMNS, csv.as_bytes()).await.body);
    let names: Vec<&str> = columns.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["timestamp", "action", "confidence", "price", "valid", "indicators.rsi"]);
    // No signal at all, and bars without times.
    let few = send(
        user,
        "/calculations/signals?request=%7B%22output%22:%22full%22%7D",
        "text/csv",
        "text/csv",
        b"close\n1\n2\n",
    )
    .await;
    assert_eq!((few.status, few.text().lines().count()), (200, 1), "{}", few.text());

    let figures = user.post("/calculations/risk", &json!({"data": rows, "timeframe": "1m"})).await.ok();
    let path = "/calculations/risk?request=%7B%22timeframe%22:%221m%22%7D";
    assert_eq!(send(user, path, "text/csv", "application/json", csv.as_bytes()).await.ok(), figures);
    assert_eq!(send(user, path, "text/csv", "text/csv", csv.as_bytes()).await.code(406), "not_acceptable");
    let fault = send(user, path, "text/csv", "*/*", b"open,high,low,close\n1,1,1,1\n1,0,2,1\n").await;
    assert_eq!(fault.problem(422)["index"], 1);
}
