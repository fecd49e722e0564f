//! `GET /calculations/catalog`, held against what the calls do.

use serde_json::{Value, json};

use crate::world::World;

#[tokio::test]
async fn what_the_catalogue_says_is_what_is_computed() {
    let world = World::new();
    let user = world.reader();
    let catalogue = user.get("/calculations/catalog").await.ok();
    let listed = catalogue["indicators"].as_array().unwrap();
    assert_eq!(catalogue["count"].as_u64(), Some(listed.len() as u64));
    let prices = |add: f64| (0..300).map(|at| 100.0 + f64::from(at % 11) + add).collect::<Vec<f64>>();
    let all = json!({"open": prices(0.5), "high": prices(2.0), "low": prices(-2.0), "close": prices(0.0),
        "volume": prices(50.0)});
    for entry in listed {
        let name = &entry["name"];
        assert!(!entry["summary"].as_str().unwrap().is_empty(), "{entry}");
        let data: Value = entry["columns"]
            .as_array()
            .unwrap()
            .iter()
            .chain([&json!("close")])
            .map(|column| (column.as_str().unwrap().to_owned(), all[column.as_str().unwrap()].clone()))
            .collect::<serde_json::Map<_, _>>()
            .into();
        for compat in ["talib", "tradingview"] {
            // Said or left out, a default is the same.
            let mut said = json!({"name": name, "id": "said"});
            for parameter in entry["parameters"].as_array().unwrap() {
                said[parameter["name"].as_str().unwrap()] = parameter["defaults"][compat].clone();
            }
            let body = json!({"data": data, "indicators": [name, said], "compat": compat});
            let answer = user.post("/calculations/indicators", &body).await.ok();
            let (plain, said) =
                (&answer["indicators"][name.as_str().unwrap()], &answer["indicators"]["said"]);
            assert_eq!(plain, said, "{name} {compat}");
            assert_eq!(answer["lookback"]["said"], entry["lookback"][compat], "{name} {compat}");
            let mut outputs: Vec<&str> =
                entry["outputs"].as_array().unwrap().iter().map(|output| output.as_str().unwrap()).collect();
            outputs.sort_unstable();
            assert_eq!(said.as_object().unwrap().keys().collect::<Vec<_>>(), outputs, "{name}");
        }
    }
    let of = |name: &str| listed.iter().find(|entry| entry["name"] == name).unwrap();
    assert_eq!(of("fractal")["shift"], json!([-2, -2]));
    assert_eq!(of("ichimoku")["shift"], json!([0, 0, 26, 26]));
    assert!(listed.iter().all(|entry| {
        entry["shift"].as_array().unwrap().len() == entry["outputs"].as_array().unwrap().len()
    }));
    for alias in listed.iter().flat_map(|entry| entry["aliases"].as_array().unwrap()) {
        let body = json!({"data": all, "indicators": [alias], "compat": "talib"});
        user.post("/calculations/indicators", &body).await.ok();
    }
}
