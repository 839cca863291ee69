# keyturn's image as it is shipped, made without docker and without a registry: the files are those that the first
# stage of the Dockerfile builds, and what else an image says is read from the Dockerfile.
# shellcheck shell=bash

readonly IMAGE_FOLDER="${CARGO_TARGET_DIR:-$REPO/target}/image"

# dockerfile WORDS: the rest of the lines of the Dockerfile that start so, without quotes and brackets.
# shellcheck disable=SC2021  # the brackets of ENTRYPOINT are meant
dockerfile() { sed -n "s/^$1[ =]//p" "$REPO/Dockerfile" | tr -d '["]'; }

# What docker would send to its builder.
image_sources() { sed -n 's/^!//p' "$REPO/.dockerignore"; }

# image_build: the optimised, static program and the certificates.
image_build() {
  local rust toolchain
  rust=$(dockerfile 'ARG RUST')
  image_toolchain "$rust"
  toolchain=$(rustup which --toolchain "$rust" rustc)
  build_rootfs builder
  # Crates are fetched by the machine's cargo, which knows the machine's proxies and certificates.
  (cd "$REPO" && rustup run "$rust" cargo fetch --locked --target "$(uname -m)-unknown-linux-gnu")
  mkdir -p "$IMAGE_FOLDER"
  BUILD_FOLDER=$IMAGE_FOLDER BUILD_SOURCES=$(image_sources) BUILD_ROOTFS=$(rootfs_folder builder) \
    BUILD_TOOLCHAIN=${toolchain%/bin/rustc} BUILD_CRATES=${CARGO_HOME:-$HOME/.cargo}/registry \
    flock "$IMAGE_FOLDER" unshare --mount --pid --fork --kill-child "$REPO/dev/image/enter"
}

image_program() { echo "$IMAGE_FOLDER/out/keyturn"; }

# What dev/image/build has made, SOURCE:TARGET.
image_files() { (cd "$IMAGE_FOLDER/out" && find . -type f -printf "$PWD/%P:/%P\n" | sort); }

# Another compiler than the Dockerfile's would make another binary.
image_toolchain() { # image_toolchain VERSION
  command -v rustup >/dev/null || {
    echo "The image is built by Rust $1, as the Dockerfile says, and rustup is not here to provide it.
Install rustup (https://rustup.rs), or build the image with docker: docker build ."
    return 1
  }
  rustup which --toolchain "$1" rustc >/dev/null 2>&1 ||
    rustup toolchain install "$1" --profile minimal --no-self-update
}

# image_name SOURCE:TARGET…: named by what is in it, so that a changed program is a new image, and an unchanged one is
# not imported again.
image_name() { echo "localhost/keyturn:$(hash_of "${@%%:*}" "$REPO/Dockerfile" "$REPO/dev/lib/image.py")"; }

# image_tar NAME SOURCE:TARGET…: an image of these files, on standard output.
image_tar() {
  local name=$1 label labels=()
  shift
  while read -r label; do labels+=(--label="$label"); done < <(dockerfile LABEL)
  "$REPO/dev/lib/image.py" --name "$name" --entrypoint "$(dockerfile ENTRYPOINT)" --user "$(dockerfile USER)" \
    "${labels[@]}" "$@"
}
