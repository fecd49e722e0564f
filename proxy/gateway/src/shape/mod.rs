//! What is done to the traffic of a service beside forwarding it: which pages may call it, how its path is
//! written, which version a caller meets. `sluice_policy` decides; here it is wired.

mod cors;
mod split;

use std::borrow::Cow;
use std::sync::Arc;

use sluice_policy::rewrite::Rewrite;
use sluice_policy::split::Split;
use sluice_schema::Service;
use sluice_wire::code::Code;

use crate::admit::decided;
use crate::ctx::{Exchange, Target};
use crate::generation::ServiceRoute;
use crate::respond::Answer;

pub(crate) use cors::{decorate, fields, preflight, takes_preflight};
pub(crate) use split::{as_arm, place};

/// What shapes the traffic of one service, prepared once a generation.
pub(crate) struct Shaping {
    cors: cors::Pages,
    rewrite: Option<Rewrite>,
    split: Split,
    /// The services of the split's arms, as they answer for this one.
    pub(crate) arms: Vec<Arc<ServiceRoute>>,
}

/// What one request's shaping has come to.
#[derive(Default)]
pub(crate) struct Shape {
    cors: cors::Leave,
    /// The service that was asked, where another one answers for it.
    pub(crate) split_of: Option<Arc<ServiceRoute>>,
}

impl Shaping {
    /// The shaping of a service; its arms are known when all services are.
    pub(crate) fn new(service: &Service) -> Self {
        Self {
            cors: cors::Pages::new(service),
            rewrite: Rewrite::new(&service.rewrite),
            split: Split::new(&service.name, service.split.iter().map(|arm| arm.weight)),
            arms: Vec::new(),
        }
    }

    /// Notes what pages of a request's origin are told.
    pub(crate) fn note_origin(&self, shape: &mut Shape, headers: &http::HeaderMap) {
        shape.cors = self.cors.leave(headers);
    }
}

/// Writes the path as the upstream of the route knows it. `Err`: what comes of it is no path.
pub(crate) fn rewrite(x: &mut Exchange) -> Result<(), Answer> {
    let Target::Service(route) = &x.target else { return Ok(()) };
    let Some(rewrite) = &route.shaping.rewrite else { return Ok(()) };
    let made = match rewrite.apply(x.forward_path.as_deref().unwrap_or(&x.arrival.path)) {
        Ok(Cow::Borrowed(_)) => return Ok(()),
        Ok(Cow::Owned(path)) => path,
        Err(_) => {
            let answer = Answer::refuse(Code::BadPath, "the path cannot be rewritten for this service");
            return Err(decided(x, "rewrite", answer));
        }
    };
    x.forward_path = (made != x.arrival.path).then_some(made);
    Ok(())
}
