//! The calls of one round, as Redis is to execute them.

use ::redis::{ErrorKind, Pipeline, RedisResult, ServerErrorKind};
use sluice_policy::limit::lease::{Ask, Granted, Terms};
use sluice_policy::limit::leases::Name;

use super::ROUND_WITHIN;
use crate::redis::{Redis, RedisError};

/// What counts and grants.
const SCRIPT: &str = include_str!("count.lua");

/// One bucket and what is asked of it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Call {
    pub(super) name: Name,
    pub(super) terms: Terms,
    pub(super) ask: Ask,
}

/// Knows by which digest Redis knows the script.
#[derive(Debug, Default)]
pub(super) struct Store {
    digest: Option<String>,
}

impl Store {
    /// Makes the calls of a round; their answers in order.
    ///
    /// # Errors
    /// The first that failed: which of the others were executed is not told.
    pub(super) async fn call(&mut self, redis: &Redis, calls: &[Call]) -> Result<Vec<Granted>, RedisError> {
        let (mut answers, forgotten) = self.once(redis, calls).await?;
        if forgotten.is_empty() {
            return Ok(answers.into_iter().flatten().collect());
        }
        // Scripts were flushed, or this is another server: what was not executed is asked again.
        self.digest = None;
        let again: Vec<Call> = forgotten.iter().map(|at| calls[*at]).collect();
        let (answered, still) = self.once(redis, &again).await?;
        if !still.is_empty() {
            let error = (ErrorKind::Server(ServerErrorKind::NoScript), "the script does not stay");
            return Err(RedisError::Failed(error.into()));
        }
        for (at, answer) in forgotten.into_iter().zip(answered) {
            answers[at] = answer;
        }
        Ok(answers.into_iter().flatten().collect())
    }

    /// The answers, and which calls found no script.
    async fn once(
        &mut self,
        redis: &Redis,
        calls: &[Call],
    ) -> Result<(Vec<Option<Granted>>, Vec<usize>), RedisError> {
        let digest = self.digest(redis).await?.to_owned();
        let mut pipeline = ::redis::pipe();
        pipeline.ignore_errors();
        for call in calls {
            add(&mut pipeline, &digest, call);
        }
        let results: Vec<RedisResult<(u64, u64)>> = redis.call_all(&pipeline, ROUND_WITHIN).await?;
        if results.len() != calls.len() {
            let error = (ErrorKind::UnexpectedReturnType, "another number of answers than calls");
            return Err(RedisError::Failed(error.into()));
        }
        let mut forgotten = Vec::new();
        let mut answers = Vec::with_capacity(results.len());
        for (at, result) in results.into_iter().enumerate() {
            answers.push(match result {
                Ok((granted, whole_after_us)) => Some(Granted::new(granted, whole_after_us)),
                Err(error) if error.kind() == ErrorKind::Server(ServerErrorKind::NoScript) => {
                    forgotten.push(at);
                    None
                }
                Err(error) => return Err(RedisError::Failed(error)),
            });
        }
        Ok((answers, forgotten))
    }

    async fn digest(&mut self, redis: &Redis) -> Result<&str, RedisError> {
        if self.digest.is_none() {
            let mut load = ::redis::cmd("SCRIPT");
            load.arg("LOAD").arg(SCRIPT);
            self.digest = Some(redis.call_within(&load, ROUND_WITHIN).await?);
        }
        Ok(self.digest.as_deref().unwrap_or_default())
    }
}

fn add(pipeline: &mut Pipeline, digest: &str, call: &Call) {
    let Call { name, terms, ask } = call;
    let mut key = String::with_capacity(16 + 32);
    key.push_str("sluice:limit:3:");
    for byte in name {
        key.push(char::from_digit(u32::from(byte >> 4), 16).unwrap_or('0'));
        key.push(char::from_digit(u32::from(byte & 15), 16).unwrap_or('0'));
    }
    pipeline.cmd("EVALSHA").arg(digest).arg(1).arg(key);
    pipeline.arg(terms.per_us).arg(terms.requests).arg(terms.capacity).arg(ask.owed).arg(ask.want);
}
