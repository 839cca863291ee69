//! Queries of [`super::bootstrap`] on the catalogue. `$1` is the role in use, `$2` the owner, which need not exist yet.
//! Every query returns only what the owner does not have yet.
//!
//! The bootstrap superuser's objects have no entry in `pg_shdepend`, so owners are read from each catalogue. Objects
//! that initdb made have an oid below 16384 and are left out, and members of extensions stay with their extensions.

/// Attributes that take effect with SET ROLE, and those that count at login.
pub(super) const ATTRIBUTES: &str = "
    SELECT CASE WHEN rolcreatedb THEN ' CREATEDB' ELSE '' END || CASE WHEN rolcreaterole THEN ' CREATEROLE' ELSE '' END
               || CASE WHEN rolbypassrls THEN ' BYPASSRLS' ELSE '' END,
           CASE WHEN rolconnlimit >= 0 THEN ' CONNECTION LIMIT ' || rolconnlimit ELSE '' END
    FROM pg_roles WHERE rolname = $1";

pub(super) const IS_MEMBER: &str = "
    SELECT true FROM pg_auth_members AS m JOIN pg_roles AS r ON r.oid = m.member JOIN pg_roles AS g ON g.oid = m.roleid
    WHERE r.rolname = $1 AND g.rolname = $2";

/// Settings of `$1` that `$2`, one of the pair, does not have.
pub(super) const SETTINGS: &str = "
    SELECT d.datname::text, c
    FROM pg_db_role_setting AS s JOIN pg_roles AS r ON r.oid = s.setrole CROSS JOIN unnest(s.setconfig) AS c
    LEFT JOIN pg_database AS d ON d.oid = s.setdatabase
    WHERE r.rolname = $1 AND c NOT LIKE 'role=%' AND NOT EXISTS (
        SELECT FROM pg_db_role_setting AS t JOIN pg_roles AS q ON q.oid = t.setrole
        WHERE q.rolname = $2 AND t.setdatabase = s.setdatabase AND c = ANY (t.setconfig))
    ORDER BY 1 NULLS FIRST, 2";

pub(super) const ACTS_AS: &str = "
    SELECT true FROM pg_db_role_setting AS s JOIN pg_roles AS r ON r.oid = s.setrole
    WHERE r.rolname = $1 AND 'role=' || $2 = ANY (s.setconfig) AND s.setdatabase IN
        (0, (SELECT oid FROM pg_database WHERE datname = current_database()))";

pub(super) const GROUPS: &str = "
    SELECT g.rolname::text, bool_or(m.admin_option)
    FROM pg_auth_members AS m JOIN pg_roles AS r ON r.oid = m.member JOIN pg_roles AS g ON g.oid = m.roleid
    WHERE r.rolname = $1 AND g.rolname <> $2 AND NOT EXISTS (
        SELECT FROM pg_auth_members AS n JOIN pg_roles AS o ON o.oid = n.member
        WHERE o.rolname = $2 AND n.roleid = m.roleid AND (n.admin_option OR NOT m.admin_option))
    GROUP BY g.rolname ORDER BY 1";

pub(super) const MEMBERS: &str = "
    SELECT r.rolname::text
    FROM pg_auth_members AS m JOIN pg_roles AS r ON r.oid = m.member JOIN pg_roles AS g ON g.oid = m.roleid
    WHERE g.rolname = $1 AND r.rolname <> $2 AND NOT EXISTS (
        SELECT FROM pg_auth_members AS n JOIN pg_roles AS o ON o.oid = n.roleid
        WHERE o.rolname = $2 AND n.member = m.member)
    GROUP BY r.rolname ORDER BY 1";

/// Members of the role. A member that may only administer the role, such as keyturn's administrator, gets nothing more.
pub(super) const MEMBERS_16: &str = "
    SELECT r.rolname::text
    FROM pg_auth_members AS m JOIN pg_roles AS r ON r.oid = m.member JOIN pg_roles AS g ON g.oid = m.roleid
    WHERE g.rolname = $1 AND r.rolname <> $2 AND (m.inherit_option OR m.set_option) AND NOT EXISTS (
        SELECT FROM pg_auth_members AS n JOIN pg_roles AS o ON o.oid = n.roleid
        WHERE o.rolname = $2 AND n.member = m.member)
    GROUP BY r.rolname ORDER BY 1";

pub(super) const DATABASE: &str = "
    SELECT d.datname::text FROM pg_database AS d JOIN pg_roles AS r ON r.oid = d.datdba
    WHERE d.datname = current_database() AND r.rolname = $1 AND d.oid >= 16384 AND $2::name IS NOT NULL";

/// Returns the query for kind and identity of everything in this database that belongs to `$1`, except for objects that
/// follow another object (a serial column's sequence, a table's row type, an array type), members of extensions, and
/// keyturn's own objects.
pub(super) fn objects(version: u32) -> String {
    // From 17 on a multirange type follows its range type and cannot be altered separately.
    let multirange = if version < 17 { ", 'm'" } else { "" };
    let types = format!(
        "(typtype IN ('d', 'e', 'r'{multirange})
          OR typtype = 'b' AND NOT EXISTS (SELECT FROM pg_type AS e WHERE e.typarray = t.oid)
          OR typtype = 'c' AND (SELECT relkind FROM pg_class WHERE oid = typrelid) = 'c')"
    );
    // The catalogue, the column of the owner, and the condition for its rows.
    let catalogues = [
        ("pg_namespace", "nspowner", "nspname !~ '^pg_'"),
        (
            "pg_class",
            "relowner",
            "relkind IN ('r', 'p', 'v', 'm', 'f') AND relpersistence <> 't' AND relnamespace <> 'pg_toast'::regnamespace",
        ),
        (
            "pg_class",
            "relowner",
            "relkind = 'S' AND relpersistence <> 't' AND NOT EXISTS (
                 SELECT FROM pg_depend AS d WHERE d.classid = 'pg_class'::regclass AND d.objid = t.oid
                 AND d.refclassid = 'pg_class'::regclass AND d.refobjsubid > 0 AND d.deptype IN ('a', 'i'))",
        ),
        ("pg_type", "typowner", &types),
        ("pg_proc", "proowner", "true"),
        ("pg_operator", "oprowner", "true"),
        ("pg_opfamily", "opfowner", "true"),
        ("pg_opclass", "opcowner", "true"),
        ("pg_collation", "collowner", "true"),
        ("pg_conversion", "conowner", "true"),
        ("pg_ts_dict", "dictowner", "true"),
        ("pg_ts_config", "cfgowner", "true"),
        ("pg_statistic_ext", "stxowner", "true"),
        ("pg_largeobject_metadata", "lomowner", "true"),
        ("pg_foreign_server", "srvowner", "true"),
        ("pg_foreign_data_wrapper", "fdwowner", "true"),
        ("pg_extension", "extowner", "true"),
        ("pg_event_trigger", "evtowner", "true"),
        ("pg_publication", "pubowner", "true"),
        ("pg_language", "lanowner", "true"),
    ];
    let parts: Vec<String> = (0..)
        .zip(catalogues)
        .map(|(rank, (catalogue, owner, which))| {
            // Catalogue entries about large objects use the name of another catalogue.
            let class = if catalogue == "pg_largeobject_metadata" { "pg_largeobject" } else { catalogue };
            format!(
                "SELECT {rank} AS rank, '{class}'::regclass::oid AS classid, t.oid AS objid FROM {catalogue} AS t
                 WHERE t.{owner} = (SELECT oid FROM pg_roles WHERE rolname = $1) AND t.oid >= 16384 AND {which}"
            )
        })
        .collect();
    format!(
        "SELECT i.type, i.identity FROM ({}) AS owned CROSS JOIN LATERAL pg_identify_object(classid, objid, 0) AS i
         WHERE $2::name IS NOT NULL AND coalesce(i.schema, CASE WHEN i.type = 'schema' THEN i.identity END, '') <> 'keyturn'
           AND NOT EXISTS (SELECT FROM pg_depend AS d WHERE d.classid = owned.classid AND d.objid = owned.objid
                           AND d.deptype = 'e')
         ORDER BY rank, i.identity",
        parts.join(" UNION ALL ")
    )
}

/// Privileges of `$1` on objects of others: object as in GRANT, privilege, and true if it has the grant option.
pub(super) const PRIVILEGES: &str = "
    WITH granted(what, owner, acl, part) AS (
        SELECT CASE WHEN relkind = 'S' THEN 'SEQUENCE ' ELSE 'TABLE ' END || oid::regclass::text, relowner, relacl, ''
        FROM pg_class WHERE relacl IS NOT NULL
        UNION ALL
        SELECT 'TABLE ' || c.oid::regclass::text, c.relowner, a.attacl, ' (' || quote_ident(a.attname) || ')'
        FROM pg_attribute AS a JOIN pg_class AS c ON c.oid = a.attrelid WHERE a.attacl IS NOT NULL AND NOT a.attisdropped
        UNION ALL SELECT 'SCHEMA ' || quote_ident(nspname), nspowner, nspacl, '' FROM pg_namespace WHERE nspacl IS NOT NULL
        UNION ALL SELECT 'ROUTINE ' || oid::regprocedure::text, proowner, proacl, '' FROM pg_proc WHERE proacl IS NOT NULL
        UNION ALL SELECT 'TYPE ' || oid::regtype::text, typowner, typacl, '' FROM pg_type WHERE typacl IS NOT NULL
        UNION ALL SELECT 'LANGUAGE ' || quote_ident(lanname), lanowner, lanacl, '' FROM pg_language WHERE lanacl IS NOT NULL
        UNION ALL SELECT 'FOREIGN SERVER ' || quote_ident(srvname), srvowner, srvacl, '' FROM pg_foreign_server
        WHERE srvacl IS NOT NULL
        UNION ALL SELECT 'DATABASE ' || quote_ident(datname), datdba, datacl, '' FROM pg_database
        WHERE datacl IS NOT NULL AND datname = current_database()
    )
    SELECT what, x.privilege_type || part, bool_or(x.is_grantable)
    FROM granted AS g CROSS JOIN LATERAL aclexplode(acl) AS x
    JOIN pg_roles AS r ON r.oid = x.grantee
    WHERE r.rolname = $1 AND g.owner <> r.oid
      AND NOT EXISTS (SELECT FROM pg_roles AS o WHERE o.rolname = $2 AND (o.oid = g.owner OR EXISTS (
          SELECT FROM aclexplode(g.acl) AS y WHERE y.grantee = o.oid AND y.privilege_type = x.privilege_type
          AND (y.is_grantable OR NOT x.is_grantable))))
    GROUP BY what, x.privilege_type, part ORDER BY 1, 2";

/// Schemas and the database on which a superuser needed no privilege and the owner has none.
pub(super) const SUPERUSERS_PLACES: &str = "
    WITH us(oid) AS (SELECT oid FROM pg_roles WHERE rolname IN ($1, $2)),
         ours(yes) AS (SELECT datdba IN (SELECT oid FROM us) FROM pg_database WHERE datname = current_database()),
         places(what, privileges, owner, acl, certain) AS (
        SELECT 'SCHEMA ' || quote_ident(nspname), 'USAGE, CREATE', nspowner, nspacl, 'CREATE' FROM pg_namespace
        WHERE nspname !~ '^pg_' AND nspname NOT IN ('information_schema', 'keyturn')
          AND (oid >= 16384 OR nspname = 'public')
        UNION ALL
        SELECT 'DATABASE ' || quote_ident(datname), 'CONNECT, CREATE, TEMPORARY', datdba, datacl, 'CREATE' FROM pg_database
        WHERE datname = current_database()
    )
    SELECT what, privileges FROM places AS p JOIN pg_roles AS r ON r.oid = p.owner
    WHERE (p.owner NOT IN (SELECT oid FROM us) OR what = 'SCHEMA public' AND r.rolname = $1)
      AND NOT (r.rolname = 'pg_database_owner' AND (SELECT yes FROM ours))
      AND NOT EXISTS (SELECT FROM aclexplode(p.acl) AS x JOIN pg_roles AS o ON o.oid = x.grantee
                      WHERE o.rolname = $2 AND x.privilege_type = p.certain)
    ORDER BY 1";

/// Default privileges: those that `$1` grants on objects that it creates (from now on the owner creates them), and
/// those that others grant to `$1`. The columns are role, schema, and the rest of the statement, in which a role is
/// quoted as by [`super::failure::ident`].
pub(super) const DEFAULTS: &str = "
    WITH kinds(objtype, word) AS (VALUES ('r'::\"char\", 'TABLES'), ('S', 'SEQUENCES'), ('f', 'FUNCTIONS'), ('T', 'TYPES'),
                                         ('n', 'SCHEMAS')),
         entries AS (
        SELECT d.defaclrole, d.defaclnamespace, d.defaclobjtype, x.grantee, x.privilege_type, x.is_grantable
        FROM pg_default_acl AS d CROSS JOIN LATERAL aclexplode(d.defaclacl) AS x),
         old(oid) AS (SELECT oid FROM pg_roles WHERE rolname = $1),
         new(oid) AS (SELECT oid FROM pg_roles WHERE rolname = $2),
         wanted AS (
        SELECT CASE WHEN e.defaclrole = old.oid THEN $2 ELSE pg_get_userbyid(e.defaclrole) END AS role,
               e.defaclnamespace AS namespace, e.defaclobjtype AS objtype,
               CASE WHEN e.grantee = old.oid THEN $2 WHEN e.grantee = 0 THEN NULL ELSE pg_get_userbyid(e.grantee) END
                   AS grantee,
               e.privilege_type, e.is_grantable
        FROM entries AS e CROSS JOIN old
        -- What a role gives itself is the default already.
        WHERE (e.defaclrole = old.oid) <> (e.grantee = old.oid)
          AND NOT (e.grantee = 0 AND e.defaclnamespace = 0 AND e.defaclobjtype IN ('f', 'T')))
    SELECT w.role::text, n.nspname::text,
           'GRANT ' || w.privilege_type || ' ON ' || k.word || ' TO ' || coalesce('\"' || replace(w.grantee, '\"', '\"\"') || '\"', 'PUBLIC')
               || CASE WHEN w.is_grantable THEN ' WITH GRANT OPTION' ELSE '' END
    FROM wanted AS w JOIN kinds AS k ON k.objtype = w.objtype LEFT JOIN pg_namespace AS n ON n.oid = w.namespace
    WHERE NOT EXISTS (
        SELECT FROM entries AS e WHERE pg_get_userbyid(e.defaclrole) = w.role AND e.defaclnamespace = w.namespace
        AND e.defaclobjtype = w.objtype AND e.privilege_type = w.privilege_type
        AND coalesce(nullif(e.grantee, 0)::text, '') =
            coalesce((SELECT oid::text FROM pg_roles WHERE rolname = w.grantee), '')
        AND (e.is_grantable OR NOT w.is_grantable))
    UNION ALL
    -- What everybody may by default, and may not on what this role creates.
    SELECT $2::text, NULL, 'REVOKE ALL ON ' || k.word || ' FROM PUBLIC'
    FROM pg_default_acl AS d JOIN old ON old.oid = d.defaclrole JOIN kinds AS k ON k.objtype = d.defaclobjtype
    WHERE d.defaclnamespace = 0 AND d.defaclobjtype IN ('f', 'T')
      AND NOT EXISTS (SELECT FROM aclexplode(d.defaclacl) AS x WHERE x.grantee = 0)
      AND NOT EXISTS (SELECT FROM pg_default_acl AS e JOIN new ON new.oid = e.defaclrole
                      WHERE e.defaclnamespace = 0 AND e.defaclobjtype = d.defaclobjtype
                        AND NOT EXISTS (SELECT FROM aclexplode(e.defaclacl) AS x WHERE x.grantee = 0))
    ORDER BY 1, 2 NULLS FIRST, 3";

/// Remaining work for a person, one sentence each.
pub(super) const LEFT_OVER: &str = "
    SELECT format('the policy %I on %s names %s: add %s to it', p.polname, p.polrelid::regclass, $1, $2)
    FROM pg_policy AS p JOIN pg_roles AS r ON r.rolname = $1
    WHERE r.oid = ANY (p.polroles) AND NOT EXISTS (
        SELECT FROM pg_roles AS o WHERE o.rolname = $2 AND o.oid = ANY (p.polroles))
    UNION ALL
    SELECT format('%s has a user mapping on the server %I: make one for %s', $1, u.srvname, $2)
    FROM pg_user_mappings AS u WHERE u.usename = $1 AND NOT EXISTS (
        SELECT FROM pg_user_mappings AS v WHERE v.usename = $2 AND v.srvname = u.srvname)
    UNION ALL
    SELECT format('%s has VALID UNTIL %s, which the new roles do not have', $1, r.rolvaliduntil)
    FROM pg_roles AS r WHERE r.rolname = $1 AND r.rolvaliduntil < 'infinity'";
