//! sluice-console.
