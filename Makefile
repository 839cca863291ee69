# `make demo` shows what keyturn does, on a world of its own. `make test` runs everything that CI runs.
.PHONY: demo test check world world-down world-reset

demo:
	@dev/demo

test:
	@dev/test

# What needs no world: seconds once built.
check:
	cargo fmt --all --check
	cargo clippy --workspace --all-targets --locked -- -D warnings
	cargo test --workspace --locked --lib --bins

world:
	@dev/world up

world-down:
	@dev/world down

world-reset:
	@dev/world reset
