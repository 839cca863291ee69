//! Reasons that only a key pair of Cloudflare R2 has.

use crate::reason::Reason;
use crate::words::words;

words! {
    /// Reason of a condition or a failure that only this source has.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub enum CloudflareR2Reason {
        /// R2 does not accept the published key pair.
        KeyPairRefused,
        /// A bucket does not exist in this account and jurisdiction.
        BucketMissing,
        /// The token was renamed since it was listed, and is not deleted.
        TokenOfAnotherName,
        /// The account has as many tokens as Cloudflare allows.
        TokenQuotaReached,
        /// Cloudflare knows no permission group of the name that `permission` stands for.
        PermissionGroupMissing,
        /// Cloudflare accepts no more requests of the account for now.
        CloudflareThrottled,
        /// Cloudflare has an internal error, or its list of tokens keeps changing.
        CloudflareUnavailable,
        /// Cloudflare cannot be reached.
        CloudflareUnreachable,
        /// A request that changes something got no answer from Cloudflare.
        CloudflareNoAnswer,
        /// The server that answers is not Cloudflare.
        CloudflareNotUnderstood,
        /// Cloudflare rejected the request.
        CloudflareRejected,
        /// The name of the token would be longer than Cloudflare allows.
        NameTooLong,
        /// The clock of the controller's node is wrong.
        ClockSkewed,
        /// The request to R2 could not be signed.
        NotSigned,
    }
}

impl From<CloudflareR2Reason> for Reason {
    fn from(reason: CloudflareR2Reason) -> Self {
        Self::Source(reason.word())
    }
}
