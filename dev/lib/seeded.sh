# What dev/seeded-bugs and dev/guards have in common.

# Copies the sources into a tree, with everything that a list names in it, each behind its name in KEYTURN_SEEDED_BUG.
seeded_copy() { # seeded_copy TREE LOG LIST
  local tree=$1 log=$2 list=$3
  rm -rf "$tree"
  mkdir -p "$tree"
  git ls-files -z | xargs -0 cp --parents --preserve=timestamps -t "$tree"
  KEYTURN_SEEDED_TREE=$tree KEYTURN_SEEDED_LIST=$list cargo test --locked --package keyturn-reconcile --test simulation -- \
    --ignored --exact seeded::all_bugs_are_written_into_a_copy >"$log" 2>&1 || { cat "$log"; return 1; }
}
