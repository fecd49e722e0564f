//! People: names, roles, and passwords that open a session.
//!
//! `password` says what a password is and how it is kept, `pool` hashes it on threads of its own, `lockout` decides
//! (purely) who may try, `attempt` is one try, `rows` what is kept of a user, `ops` what administrators do.

mod api;
mod attempt;
mod first;
mod lockout;
mod ops;
mod password;
mod pool;
mod rows;

pub(crate) use api::routes;
pub(crate) use attempt::{Guard, Proven, Source, Try};
pub(crate) use ops::{end_sessions, remove};
pub(crate) use password::{Cost, PASSWORD_CHARS_MIN, Password, hash_new};
pub(crate) use pool::Pool;
pub(crate) use rows::{Standing, User, find, name, save, subject};
