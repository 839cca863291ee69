//! The targets: systems that must accept a credential, behind one port. Each source with a target has a folder, named
//! after its field in `spec.generate`. The folder has the command-line arguments of the source, the code that opens the
//! target of a secret, and the adapter itself.

mod access;
pub mod cloudflare_r2;
pub mod postgres;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use clap::Args;
use keyturn_reconcile::objects::Objects;
use keyturn_reconcile::ports::{Regions, Targets};
use keyturn_reconcile::settings::Settings;
pub use keyturn_reconcile::target::*;
use kube::Client;

use self::access::Access;
use crate::api::ManagedSecret;
use crate::api::source::GenerateSpec;
use crate::secret_value::SecretValue;

/// Opens the targets of one source.
#[async_trait]
trait Open: Send + Sync {
    /// The part of `spec.generate` that names this source.
    type Spec: Sync;

    /// Opens the target of this secret. Reads the credentials for it, but does not connect.
    async fn open(
        &self,
        access: &Access,
        object: &ManagedSecret,
        spec: &Self::Spec,
        region: &str,
    ) -> Result<Arc<dyn Target>, TargetError>;

    /// Reads the secret of the administrator, so that it can be redacted from texts. `None` if the spec names no
    /// administrator.
    async fn admin_secret(
        &self,
        access: &Access,
        object: &ManagedSecret,
        spec: &Self::Spec,
        region: &str,
    ) -> Result<Option<SecretValue>, TargetError>;
}

/// Opens the targets of all ManagedSecrets of a cluster.
pub struct Sources {
    openers: Arc<Openers>,
    access: Access,
}

impl Sources {
    /// Creates the port, without connecting. Secrets of the cluster are read with `client`.
    pub fn new(
        openers: Arc<Openers>,
        client: Client,
        objects: Arc<dyn Objects>,
        regions: Arc<dyn Regions>,
        settings: &Settings,
    ) -> Self {
        Self { openers, access: Access::new(client, objects, regions, settings) }
    }
}

#[async_trait]
impl Targets for Sources {
    async fn open(
        &self,
        object: &ManagedSecret,
        region: &str,
    ) -> Result<Option<Arc<dyn Target>>, TargetError> {
        self.openers.open(&self.access, object, region).await
    }

    async fn admin_secret(
        &self,
        object: &ManagedSecret,
        region: &str,
    ) -> Result<Option<SecretValue>, TargetError> {
        self.openers.admin_secret(&self.access, object, region).await
    }
}

/// Registers the sources: first those with a target, each a module with its `Arguments` and its `Opener`, then those
/// without a target. All have the names of their fields in `spec.generate`, and the compiler refuses a list that lacks
/// one.
macro_rules! sources {
    (opened: $($source:ident)+; drawn: $($drawn:ident)*;) => {
        /// Arguments of all sources.
        #[derive(Args, Clone, Debug)]
        // Otherwise the argument groups of all sources would have the same name, which clap refuses.
        #[group(skip)]
        pub struct Arguments {
            $(
                #[command(flatten)]
                $source: $source::Arguments,
            )+
        }

        impl Arguments {
            /// Returns the flags that take an address, each with its address.
            pub fn addresses(&self) -> Vec<(&'static str, &str)> {
                [$(self.$source.addresses()),+].concat()
            }
        }

        /// The openers of the targets, one for each source. An opener has everything that the secrets of its source
        /// share.
        pub struct Openers {
            $($source: $source::Opener,)+
        }

        impl Openers {
            /// Creates the openers, without connecting. No request of theirs lasts longer than the grace period.
            ///
            /// # Errors
            /// Returns an error if the client of a source cannot be set up.
            pub fn new(arguments: &Arguments, grace: Duration) -> Result<Self, TargetError> {
                Ok(Self { $($source: $source::Opener::new(&arguments.$source, grace)?,)+ })
            }

            async fn open(
                &self,
                access: &Access,
                object: &ManagedSecret,
                region: &str,
            ) -> Result<Option<Arc<dyn Target>>, TargetError> {
                let GenerateSpec { $($source,)+ $($drawn: _,)* } = &object.spec.generate;
                $(
                    if let Some(spec) = $source {
                        return self.$source.open(access, object, spec, region).await.map(Some);
                    }
                )+
                Ok(None)
            }

            async fn admin_secret(
                &self,
                access: &Access,
                object: &ManagedSecret,
                region: &str,
            ) -> Result<Option<SecretValue>, TargetError> {
                $(
                    if let Some(spec) = &object.spec.generate.$source {
                        return self.$source.admin_secret(access, object, spec, region).await;
                    }
                )+
                Ok(None)
            }
        }
    };
}

sources! {
    opened: postgres cloudflare_r2;
    drawn: hex base64 password fernet;
}
