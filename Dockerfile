# keyturn's image: a static binary and the certificates of public authorities. Nothing else is in it, no shell either.
#
#   docker build --tag registry.example.com/keyturn:0.1.0 .
#
# `dev/world image` makes the same without docker: it reads versions, user, entrypoint and labels from this file, and
# runs the same script. Nothing here needs BuildKit.

# The compiler that keyturn is shipped from. Cargo.toml's rust-version is the oldest one that builds it.
ARG RUST=1.95.0
# Debian 13 with that Rust, from elsewhere where Docker Hub cannot be reached.
ARG BUILDER=rust:${RUST}-slim-trixie

FROM ${BUILDER} AS build
WORKDIR /src
COPY . .
RUN dev/image/build /out

FROM scratch
COPY --from=build /out/ /
# A number, because Kubernetes cannot tell that a name is not root's (runAsNonRoot).
USER 65532:65532
ENTRYPOINT ["/keyturn"]
LABEL org.opencontainers.image.title="keyturn"
LABEL org.opencontainers.image.description="Rotates the secrets that a fleet of docker hosts runs on"
LABEL org.opencontainers.image.version="0.1.0"
LABEL org.opencontainers.image.licenses="Apache-2.0"
