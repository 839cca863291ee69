//! Reasons of conditions, Events and failures.

use std::borrow::Cow;
use std::fmt;

use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::{Serialize, Serializer};

use crate::docker_host::RunResult;
use crate::managed_secret::rotation::Step;
use crate::words::{Word, words};

words! {
    /// The reason of a condition, an Event or a failure. Two reasons are equal when users see the same word.
    #[derive(Clone, Copy)]
    pub enum Reason {
        /// The value is published.
        Published,
        /// The first value is being created.
        Creating,
        /// The published login does not work any more, and the new one is not published yet.
        LoginReplaced,
        /// A rotation may have replaced the published login, and its server has not answered since.
        LoginUnseen,
        /// The system does not accept the login.
        LoginRefused,
        /// A parameter does not exist.
        ParameterMissing,
        /// Somebody else wrote a parameter.
        ForeignWrite,
        /// The description of a parameter names another owner.
        OwnedByOther,
        /// An older ManagedSecret of the namespace has the same parameter.
        Conflict,

        /// Nothing is under way.
        Idle,
        /// The value of the rotate annotation is too long.
        InvalidRequest,
        /// `spec.suspend` is true.
        Suspended,

        /// The containers run the published value.
        Proven,
        /// A host has not proven the published version yet.
        Deploying,
        /// A version that keyturn did not publish has not been compared with the hosts yet.
        Adopted,
        /// No container has the variable, so nothing proves what runs.
        NothingToCompare,
        /// A running container holds another value than the published one.
        ValueDiffers,
        /// Nothing is published yet; on a SecretIncident: there is no ManagedSecret of this name.
        Missing,

        /// The value is older than its period.
        PeriodExceeded,
        /// The published token expires soon.
        TokenEnds,
        /// The value is younger than its period.
        WithinPeriod,
        /// The published value is the expected one.
        InSync,
        /// The hosts run what is published, as of the last check.
        Passed,
        /// The hosts have not been compared yet.
        Pending,

        /// The new value for an incident is not published yet.
        Rotating,
        /// The old login is not revoked yet after an incident.
        Revoking,
        /// No value from before the report of an incident can be used.
        Contained,

        /// No RotationGrant covers the object.
        NotGranted,
        /// A RotationGrant with mode Observe covers the object.
        Observe,
        /// The spec has a mistake that the API server could not check.
        InvalidSpec,
        /// A window of the secret or of a host cannot be read.
        InvalidWindow,
        /// The windows of the secret and of its hosts are never open together.
        NoWindow,
        /// The spec names a DockerHost that does not exist.
        HostMissing,
        /// SSM would refuse the new version, so nothing was changed.
        NotPublishable,
        /// The source of the value was changed in mid-rotation.
        SourceChanged,
        /// An open record belongs to an object of the same name with other parameters.
        OtherParameters,
        /// The API server refused a read or a write of keyturn's objects, or gave no answer.
        APIServer,

        /// AWS denied a request to SSM.
        SSMDenied,
        /// SSM rejects the request as it stands.
        SSMRejected,
        /// SSM throttles the account.
        SSMThrottled,
        /// keyturn's own budget of SSM requests is used up.
        RequestBudgetSpent,
        /// SSM cannot be reached.
        SSMUnavailable,
        /// A write to SSM got no answer.
        SSMNoAnswer,
        /// Reads of SSM do not show the last write yet.
        SSMReadsLag,
        /// A parameter below the staging path is not a record of this version of keyturn.
        RecordUnreadable,
        /// The values of one rotation do not fit into one record.
        RecordTooLarge,
        /// SSM no longer has the version that a roll back needs.
        PreviousValueGone,
        /// No value could be generated.
        GenerateFailed,

        /// The published text is no login of this source.
        PublishedLoginUnreadable,
        /// The administrator of the target is refused.
        AdministratorRefused,
        /// A Secret does not exist.
        SecretMissing,
        /// The label of a Secret does not allow this use.
        SecretNotLabelled,
        /// A key, parameter or DockerHost that the spec names for the target is missing, cannot be used, or could not
        /// be read.
        TargetNotConfigured,
        /// The target cannot be reached.
        TargetUnreachable,
        /// The DockerHost on the way to the target cannot be decoded.
        HostUnreadable,
        /// The settings or certificates of TLS cannot be used.
        TlsNotUsable,
        /// keyturn's account lacks a right in the namespace; for a Postgres target: the role does not exist.
        RoleMissing,
        /// Another ManagedSecret rotates the same role.
        RoleInUse,
        /// The roles have to be created first, and the spec lets keyturn only list the statements.
        SetUpPlanned,
        /// Nothing shows whether a session from before a password change is still open.
        SessionsUnseen,
        /// Nothing proves that a host no longer uses the old credential, or runs the published version.
        NotProven,
        /// The old token still works, and keyturn may not delete it.
        OldTokenOutOfReach,

        /// Other secrets of the host are about to be published.
        Coalescing,
        /// The role of a ManagedSecret is being changed in place.
        WaitingForSecret,
        /// Another host has to be deployed to first, or is deploying a secret that this host runs too.
        WaitingForHost,
        /// The window of the host is closed.
        WaitingForWindow,
        /// The last run failed; the next one starts later.
        BackingOff,
        /// The running containers are being compared with the published values.
        Verifying,
        /// Log lines are being collected for an incident.
        Collecting,
        /// A deployment is running.
        Running,
        /// A window of the host cannot be read, or never opens.
        WindowUnusable,
        /// `deploy.after` names a DockerHost that does not exist.
        AfterNotFound,
        /// `deploy.after` leads back to the host itself.
        AfterIsACircle,
        /// The pod of a Job does not start.
        PodNotRunning,
        /// The Job could not be created.
        JobNotCreated,
        /// The operating system gave no random bytes.
        NoRandomness,
        /// SSM does not have the version of this deployment, or does not show it yet.
        VersionMissing,
        /// No ManagedSecret names the host.
        NothingToRun,
        /// The containers run the published values as far as they can be compared.
        PartlyProven,
        /// No image that the containers run carries a secret.
        Clean,
        /// No run has audited all images yet.
        NotAudited,
        /// An image carries a secret.
        SecretsFound,

        /// The suspected secrets are being rotated and revoked.
        Responding,
        /// The incident selects no ManagedSecret.
        NothingSelected,
        /// CloudTrail is being searched for the first time.
        Reading,
        /// The search of CloudTrail covers the time until the last secret was contained.
        Complete,
        /// The search of CloudTrail does not cover the end of the incident yet.
        NotComplete,
        /// No secret of the incident has a command that collects log lines.
        NoCommand,
        /// Every host has collected its log lines.
        Collected,

        /// Event: a rotation was started.
        RotationStarted,
        /// Event: a rotation was completed.
        RotationCompleted,
        /// Event: a rotation was given up before anything was published.
        RotationAborted,
        /// Event: a deleted object could not finish its rotation in time.
        RotationAbandoned,
        /// Event: the previous value is being published again.
        RollBackStarted,
        /// Event: the previous value is published again.
        RolledBack,
        /// Event: the owner and the pair of roles were created.
        RolesSetUp,
        /// Event: the open sessions of the old login were ended.
        SessionsEnded,
        /// Event: the old login was retired.
        LoginRetired,
        /// Event: the old credential could not be retired.
        RetirementFailing,
        /// Event: a token that an interrupted rotation left behind was deleted.
        OrphanDeleted,
        /// Event: somebody put a version with a forged stamp.
        ForgedStamp,
        /// Event: somebody put the published value again with another description.
        TakenOver,
        /// Event: a rotation replaced versions that somebody else wrote.
        ForeignWriteReplaced,
        /// Event: a parameter was deleted with its ManagedSecret.
        ParameterDeleted,
        /// Event: an incident concerns the secret.
        Compromised,
        /// Event: a person has to act.
        Stalled,
        /// Event: the value is older than its period.
        Overdue,
        /// Event: somebody else wrote a parameter.
        Drifted,
        /// Event: the preflight of a rotation failed.
        PreflightFailed,
        /// Event: a host does not run the published version.
        NotDeployed,
        /// Event: a SecretIncident was opened.
        IncidentOpened,
        /// Event: every secret of a SecretIncident is contained.
        IncidentContained,
        /// Event: the search of CloudTrail is complete.
        AuditComplete,
        /// Event: log lines were collected.
        LogsCollected,
        /// Event: a deployment was started.
        DeployStarted,
        /// Event: a deployment succeeded.
        DeploySucceeded,
        /// Event: a comparison was started.
        VerifyStarted,
        /// Event: a collection of log lines was started.
        CollectStarted,
        /// Event: a run ended without a report.
        RunLost,
        /// Event: a secret was found in an image.
        SecretInImage,
        /// Event: no image carries a secret any more.
        ImagesClean,
        /// Event: this version of keyturn cannot read the object.
        Undecodable,

        /// Another version of keyturn wrote a reason that this one does not know.
        Unknown,
        ;
        /// The step of a rotation that is under way.
        Step(Step),
        /// The result of a run on a docker host.
        Run(RunResult),
        /// A reason that only one source has.
        Source(Word),
    }
}

impl PartialEq for Reason {
    fn eq(&self, other: &Self) -> bool {
        self.name() == other.name()
    }
}

impl Eq for Reason {}

/// Compares a reason with a name, the form in which a status stores a reason.
impl PartialEq<str> for Reason {
    fn eq(&self, name: &str) -> bool {
        self.name() == name
    }
}

impl PartialEq<&str> for Reason {
    fn eq(&self, name: &&str) -> bool {
        self.name() == *name
    }
}

impl From<Step> for Reason {
    fn from(step: Step) -> Self {
        Self::Step(step)
    }
}

impl From<RunResult> for Reason {
    fn from(result: RunResult) -> Self {
        Self::Run(result)
    }
}

impl fmt::Debug for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl Serialize for Reason {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}

/// The schema is any string, like the schema of a condition's reason. If it listed the values, an older
/// CustomResourceDefinition in the cluster would reject a new reason, and with it the whole status.
impl JsonSchema for Reason {
    fn schema_name() -> Cow<'static, str> {
        "Reason".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        String::json_schema(generator)
    }
}
