//! What an admitted request needs before it goes to its upstream: leave of the service's breaker.

use sluice_wire::code::Code;
use sluice_wire::problem::Problem;

use crate::admit::{decided, not_sent};
use crate::clock;
use crate::ctx::{Exchange, Target};
use crate::respond::Answer;
use crate::shape;

/// Lets an admitted request in. `Err` is the answer that refuses it; the upstream is not touched.
pub(crate) fn enter(x: &mut Exchange) -> Result<(), Answer> {
    shape::place(x);
    ask_breaker(x)?;
    if let Target::Service(route) = &x.target {
        route.upstream.count_request();
    }
    Ok(())
}

/// Asks the service's breaker; an open one answers without touching the upstream.
fn ask_breaker(x: &mut Exchange) -> Result<(), Answer> {
    let Target::Service(route) = &x.target else { return Ok(()) };
    match route.upstream.acquire() {
        Ok(leave) => {
            x.leave = Some(leave);
            Ok(())
        }
        Err(rejected) => {
            let problem = Problem::new(Code::BreakerOpen)
                .detail("the service failed lately and is given time to recover")
                .retry_after_s(clock::retry_after_s(rejected.retry_after));
            let answer = Answer::problem(not_sent(x, problem));
            Err(decided(x, "breaker_open", answer))
        }
    }
}
