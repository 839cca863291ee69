# `make demo` shows what keyturn does, on a world of its own. `make test` runs everything that CI runs,
# and `dev/test PART` a part of it.
.PHONY: demo test check model prove bench seeded-bugs guards fuzz reproducible advisories book world world-down world-reset

demo:
	@dev/demo

test:
	@dev/test

# What needs no world: seconds once built.
check:
	cargo fmt --all --check
	cargo clippy --workspace --all-targets --locked -- -D warnings
	cargo test --workspace --locked --lib --bins

# All faults of the simulation in pairs, on all processors. What is done of a commit is kept: whoever stops it goes on
# where it was. `make prove SECONDS=600` ends after that time. Writes docs/proof.md.
prove:
	KEYTURN_PROVE_SECONDS=$(SECONDS) cargo test --profile prove --locked --package keyturn-reconcile --test simulation -- \
	  --ignored --exact --nocapture prove::every_fault_and_every_pair

# What keyturn costs with 100 to 10,000 secrets, beside a controller that writes one status for each, on a world of its own:
# docs/performance.md. Takes hours; `make bench OBJECTS=100,1000 ROUNDS=1 ONLY=existing,rotation` measures less.
bench:
	@dev/bench $(if $(OBJECTS),--objects $(OBJECTS)) $(if $(ROUNDS),--rounds $(ROUNDS)) $(if $(ONLY),--only $(ONLY))

# Which check of the simulation finds each of the bugs in crates/reconcile/tests/simulation/bugs.yaml: docs/seeded-bugs.md.
seeded-bugs:
	@dev/seeded-bugs

# Which tests fail where a guard of tests/guards.yaml is taken away: docs/guards.md.
guards:
	@dev/guards

# Every world that the rotation protocol can come to, in minutes: docs/model.md.
model:
	cargo run --locked --package keyturn-rotation-model

# Bytes that break what reads them: an hour for each function of fuzz/src/lib.rs, or `make fuzz SECONDS=60`.
fuzz:
	@dev/fuzz $(or $(SECONDS),3600)

# Whether the image is the same to the byte when it is built once more, from nothing.
reproducible:
	@dev/reproducible

# The newest advisories about dependencies, into the file that tests read.
advisories:
	@dev/advisories refresh

# The pages of docs/ as a site with a search, in target/book. Needs mdbook, and says how to install it.
book:
	@dev/book

world:
	@dev/world up

world-down:
	@dev/world down

world-reset:
	@dev/world reset
