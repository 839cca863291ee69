//! `cloudflare-emulator`: the emulator as a separate process.

use std::error::Error;
use std::path::PathBuf;

use clap::Parser;
use keyturn_cloudflare_emulator::Emulator;

/// Cloudflare's account tokens and R2's S3 endpoint for tests, with faults on demand (see POST /_emulator/faults).
#[derive(Parser)]
#[command(version)]
struct Arguments {
    /// Address to serve on; the one that was taken is printed.
    #[arg(long, default_value = "127.0.0.1:4584")]
    listen: String,
    /// File that keeps accounts, buckets and tokens over a restart; in memory only when absent.
    #[arg(long)]
    state: Option<PathBuf>,
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let arguments = Arguments::parse();
    let emulator = Emulator::listen(&arguments.listen, arguments.state).await?;
    println!("CLOUDFLARE_API_URL={}", emulator.api_url());
    println!("R2_ENDPOINT={}", emulator.s3_endpoint());
    let mut terminated = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
    tokio::select! {
        interrupted = tokio::signal::ctrl_c() => interrupted?,
        _ = terminated.recv() => {}
    }
    Ok(())
}
