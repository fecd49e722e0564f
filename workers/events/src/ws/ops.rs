//! What a client says over a WebSocket, read and judged; nothing is done here.

use http::HeaderMap;
use serde_json::{Map, Value};
use sluice_http::Reject;
use sluice_wire::code::Code;
use sluice_wire::json;

use super::credit::CREDIT_MAX;
use crate::log::Filter;
use crate::params::{Params, bad};
use crate::stream::choice::{Choice, Misfit};
use crate::stream::position::{Position, Start};

/// LIMIT: bytes of a subscription's name.
const NAME_BYTES_MAX: usize = 64;

/// One thing a client wants.
#[derive(Debug)]
pub(super) enum Op {
    Subscribe { choice: Choice, credit: Option<u64> },
    Unsubscribe,
    Seek(Start),
    Credit(u64),
    Ack(Position),
}

/// What is wrong with a message, and which subscription it was about.
#[derive(Debug)]
pub(super) struct Wrong {
    pub(super) sub: Option<String>,
    pub(super) pointer: String,
    pub(super) reject: Reject,
}

/// Reads a message: the name of the subscription and what is wanted.
pub(super) fn read(text: &str, readable: &Filter) -> Result<(String, Op), Wrong> {
    let nameless = |pointer: &str, reject: Reject| Wrong { sub: None, pointer: pointer.to_owned(), reject };
    let members: Map<String, Value> = json::from_slice(text.as_bytes()).map_err(|error| {
        let code = if error.shape { Code::Unprocessable } else { Code::InvalidJson };
        nameless("", Reject::new(code, error.to_string()))
    })?;
    let mut said = Said(members);
    let op = said.text("op").map_err(|reject| nameless("/op", reject))?;
    let sub = said.text("sub").map_err(|reject| nameless("/sub", reject))?;
    if sub.is_empty() || sub.len() > NAME_BYTES_MAX || sub.chars().any(char::is_control) {
        let detail = format!("a name has 1 to {NAME_BYTES_MAX} bytes and no control characters");
        return Err(nameless("/sub", bad(detail)));
    }
    let wrong = |misfit: Misfit| Wrong {
        sub: Some(sub.clone()),
        pointer: misfit.pointer.to_owned(),
        reject: misfit.reject,
    };
    let op = match op.as_str() {
        "subscribe" => said.subscribe(readable),
        "unsubscribe" => said.ended(Op::Unsubscribe),
        "seek" => said.seek(),
        "credit" => said.number("n").map_err(Misfit::at("/n")).and_then(|n| said.ended(Op::Credit(n))),
        "ack" => said.ack(),
        _ => Err(Misfit::at("/op")(bad("op is `subscribe`, `unsubscribe`, `ack`, `seek` or `credit`"))),
    };
    op.map_err(wrong).map(|op| (sub, op))
}

/// The members of a message, taken out one by one.
struct Said(Map<String, Value>);

impl Said {
    fn text(&mut self, name: &str) -> Result<String, Reject> {
        match self.0.remove(name) {
            Some(Value::String(text)) => Ok(text),
            Some(_) => Err(bad(format!("`{name}` is not a text"))),
            None => Err(bad(format!("`{name}` is missing"))),
        }
    }

    fn number(&mut self, name: &str) -> Result<u64, Reject> {
        let number = self.0.remove(name).and_then(|value| value.as_u64());
        number
            .filter(|number| (1..=CREDIT_MAX).contains(number))
            .ok_or_else(|| bad(format!("`{name}` is a number from 1 to {CREDIT_MAX}")))
    }

    fn ended(&mut self, op: Op) -> Result<Op, Misfit> {
        match self.0.keys().next() {
            Some(name) => {
                let name: String = name.chars().take(64).collect();
                Err(Misfit::at("")(bad(format!("unknown member `{}`", name.escape_default()))))
            }
            None => Ok(op),
        }
    }

    fn seek(&mut self) -> Result<Op, Misfit> {
        let to = self.text("to").and_then(|to| Start::from_text(Some(&to))).map_err(Misfit::at("/to"))?;
        self.ended(Op::Seek(to))
    }

    fn ack(&mut self) -> Result<Op, Misfit> {
        let id = self.text("id").and_then(|id| id.parse().map_err(|_| bad("`id` is not an event's id")));
        let id = id.map_err(Misfit::at("/id"))?;
        self.ended(Op::Ack(id))
    }

    /// The members as the pairs of a query, so that both ways to subscribe mean the same.
    fn subscribe(&mut self, readable: &Filter) -> Result<Op, Misfit> {
        let credit = if self.0.contains_key("credit") {
            Some(self.number("credit").map_err(Misfit::at("/credit"))?)
        } else {
            None
        };
        let mut pairs = Vec::new();
        for (name, value) in std::mem::take(&mut self.0) {
            let values = if let Value::Array(values) = value { values } else { vec![value] };
            for value in values {
                let text = match value {
                    Value::String(text) => text,
                    Value::Bool(_) | Value::Number(_) => value.to_string(),
                    _ => {
                        let name: String = name.chars().take(64).collect();
                        let detail =
                            format!("`{}` is neither a text, a number nor a list", name.escape_default());
                        return Err(Misfit::at("")(bad(detail)));
                    }
                };
                pairs.push((name.clone(), text));
            }
        }
        let mut params = Params::new(pairs);
        let choice = Choice::parse(&mut params, &HeaderMap::new(), readable.clone())?;
        params.finish().map_err(Misfit::at(""))?;
        Ok(Op::Subscribe { choice, credit })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stream::choice::Mode;

    #[test]
    fn a_subscription_is_what_a_stream_would_be() {
        let text = r#"{"op":"subscribe","sub":"a","event_type":["risk_alert","x"],"symbol":"BTC/USDT",
            "max_rate":5,"credit":10}"#;
        let (sub, op) = read(text, &Filter::default()).unwrap();
        let Op::Subscribe { choice, credit } = op else { panic!("{op:?}") };
        assert_eq!((sub.as_str(), credit), ("a", Some(10)));
        assert_eq!(choice.mode, Mode::All { rate: Some(5.0) });
        assert_eq!(choice.selector.filter.kinds.len(), 2);
        assert!(matches!(
            read(r#"{"op":"unsubscribe","sub":"a"}"#, &Filter::default()),
            Ok((_, Op::Unsubscribe))
        ));
    }

    #[test]
    fn what_is_wrong_is_pointed_at() {
        for (text, pointer, code) in [
            ("{", "", Code::InvalidJson),
            ("[]", "", Code::Unprocessable),
            (r#"{"op":"subscribe","op":"ack"}"#, "", Code::InvalidJson),
            (r#"{"sub":"a"}"#, "/op", Code::BadQuery),
            (r#"{"op":"subscribe"}"#, "/sub", Code::BadQuery),
            (r#"{"op":"subscribe","sub":""}"#, "/sub", Code::BadQuery),
            (r#"{"op":"dance","sub":"a"}"#, "/op", Code::BadQuery),
            (r#"{"op":"subscribe","sub":"a","mode":"some"}"#, "/mode", Code::BadQuery),
            (r#"{"op":"subscribe","sub":"a","from":{}}"#, "", Code::BadQuery),
            (r#"{"op":"subscribe","sub":"a","colour":1}"#, "", Code::BadQuery),
            (r#"{"op":"subscribe","sub":"a","credit":0}"#, "/credit", Code::BadQuery),
            (r#"{"op":"unsubscribe","sub":"a","x":1}"#, "", Code::BadQuery),
            (r#"{"op":"seek","sub":"a","to":"someday"}"#, "/to", Code::BadQuery),
            (r#"{"op":"credit","sub":"a","n":-1}"#, "/n", Code::BadQuery),
            (r#"{"op":"ack","sub":"a","id":"x"}"#, "/id", Code::BadQuery),
        ] {
            let wrong = read(text, &Filter::default()).unwrap_err();
            assert_eq!((wrong.pointer.as_str(), wrong.reject.problem().code), (pointer, code), "{text}");
        }
    }
}
