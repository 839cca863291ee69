//! The R2 target over an emulated Cloudflare: real HTTP, real signatures, and everything that can come back.

mod answers;
mod hostile;
mod scene;
mod tokens;
