//! What is done to the traffic of a service beside forwarding it: which pages may call it, how its path is
//! written, which version a caller meets, who gets a copy, what stands in for an answer that did not come, what is
//! compressed. `sluice_policy` decides; here it is wired.

mod compress;
mod cors;
mod fallback;
mod mirror;
mod split;

use std::borrow::Cow;
use std::sync::atomic::AtomicUsize;
use std::sync::{Arc, OnceLock, Weak};

use sluice_policy::rewrite::Rewrite;
use sluice_policy::split::Split;
use sluice_schema::Service;
use sluice_wire::code::Code;

use crate::admit::decided;
use crate::ctx::{Exchange, Target};
use crate::generation::ServiceRoute;
use crate::respond::Answer;

pub(crate) use compress::{begin as begin_squeeze, end_squeeze, squeeze};
pub(crate) use cors::{decorate, fields, preflight, takes_preflight};
pub(crate) use fallback::{collect, follow, replacement, stand_in};
pub(crate) use mirror::copy;
pub(crate) use split::{arm, join, place};

/// What shapes the traffic of one service, prepared once a generation.
pub(crate) struct Shaping {
    cors: cors::Pages,
    rewrite: Option<Rewrite>,
    fixed: Option<fallback::Fixed>,
    split: Split,
    /// The services of the split's arms, as they answer for this one.
    arms: Vec<Arc<ServiceRoute>>,
    /// Services may mirror each other, so none of them holds another.
    mirror: OnceLock<Weak<ServiceRoute>>,
}

/// What one request's shaping has come to.
#[derive(Default)]
pub(crate) struct Shape {
    cors: cors::Leave,
    /// The service that was asked, where another one answers for it.
    pub(crate) split_of: Option<Arc<ServiceRoute>>,
    collected: Option<Box<fallback::Collected>>,
    squeezed: Option<Box<compress::Squeezed>>,
}

/// What shaping keeps for all threads.
pub(crate) struct Shaped {
    kept: fallback::Kept,
    mirrors: mirror::Mirrors,
    squeezed: Arc<AtomicUsize>,
}

impl Shaped {
    /// Nothing is kept, copied or compressed yet.
    pub(crate) fn new() -> Self {
        Self { kept: fallback::Kept::new(), mirrors: mirror::Mirrors::new(), squeezed: Arc::default() }
    }
}

impl Shaping {
    /// The shaping of a service; what it says of others is joined when all are known.
    pub(crate) fn new(service: &Service) -> Self {
        Self {
            cors: cors::Pages::new(service),
            rewrite: Rewrite::new(&service.rewrite),
            fixed: fallback::Fixed::new(service),
            split: Split::new(&service.name, service.split.iter().map(|arm| arm.weight)),
            arms: Vec::new(),
            mirror: OnceLock::new(),
        }
    }

    /// The services of its split's arms, as they answer for it.
    pub(crate) fn arms(&self) -> &[Arc<ServiceRoute>] {
        &self.arms
    }

    /// Notes what pages of a request's origin are told.
    pub(crate) fn note_origin(&self, shape: &mut Shape, headers: &http::HeaderMap) {
        shape.cors = self.cors.leave(headers);
    }

    /// The service that gets copies, while its generation lives.
    fn mirror(&self) -> Option<Arc<ServiceRoute>> {
        self.mirror.get()?.upgrade()
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
