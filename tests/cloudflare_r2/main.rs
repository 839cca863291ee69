//! Tests the R2 target with an emulated Cloudflare: real HTTP, real signatures, and every possible answer.

mod answers;
mod hostile;
mod scene;
mod tokens;
