//! `aws-emulator`: the emulator as a separate process.

use std::error::Error;

use clap::Parser;
use keyturn_aws_emulator::{Emulator, Upstream};

/// SSM Parameter Store for tests, with faults on demand (see POST /_emulator/faults).
#[derive(Parser)]
#[command(version)]
struct Arguments {
    /// Address to serve on; the one that was taken is printed.
    #[arg(long, default_value = "127.0.0.1:4577")]
    listen: String,
    /// Forward requests to this SSM (http://HOST:PORT) instead of keeping parameters.
    #[arg(long)]
    upstream: Option<String>,
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let arguments = Arguments::parse();
    let upstream = arguments.upstream.as_deref().map(Upstream::new).transpose()?;
    let emulator = Emulator::listen(&arguments.listen, upstream).await?;
    println!("AWS_ENDPOINT_URL_SSM={0}\nAWS_ENDPOINT_URL_CLOUDTRAIL={0}", emulator.url());
    let mut terminated = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
    tokio::select! {
        interrupted = tokio::signal::ctrl_c() => interrupted?,
        _ = terminated.recv() => {}
    }
    Ok(())
}
