# What dev/seeded-bugs and dev/guards have in common.
# shellcheck shell=bash

# Copies the sources into a tree, with everything that a list names in it, each behind its name in KEYTURN_SEEDED_BUG.
seeded_copy() { # seeded_copy TREE LOG LIST
  local tree=$1 log=$2 list=$3
  rm -rf "$tree"
  mkdir -p "$tree"
  git ls-files -z | xargs -0 cp --parents --preserve=timestamps -t "$tree"
  KEYTURN_SEEDED_TREE=$tree KEYTURN_SEEDED_LIST=$list cargo test --locked --package keyturn-reconcile --test simulation -- \
    --ignored --exact seeded::all_bugs_are_written_into_a_copy >"$log" 2>&1 || { cat "$log"; return 1; }
}

seeded_names() { sed -n 's/^- name: //p' "$1"; } # seeded_names LIST

# What stands behind a field of one item, where that is one line.
seeded_field() { # seeded_field LIST NAME FIELD
  awk -v name="- name: $2" -v field="  $3: " '
    $0 == name { here = 1; next }
    /^- name: / { here = 0 }
    here && index($0, field) == 1 { print substr($0, length(field) + 1) }' "$1"
}
