//! What `wit/transform.wit` looks like from here, generated. No code of ours.
#![allow(missing_debug_implementations, unreachable_pub, clippy::all, reason = "generated")]

wasmtime::component::bindgen!({
    path: "../wit",
    world: "transform-component",
    ownership: Borrowing { duplicate_if_necessary: true },
});

pub(super) use exports::weir::transform::transform as wit;

/// The interface that a transform exports.
pub(super) const INTERFACE: &str = "weir:transform/transform@0.1.0";
