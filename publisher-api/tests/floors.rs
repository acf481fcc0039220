//! Holds the floors of this crate, as ARCHITECTURE.md draws them: no module imports from a floor above its
//! own.

/// The floors, lowest first.
const FLOORS: &[(&str, &[&str])] = &[
    ("ground", &["history", "metrics", "scope", "shares", "spans"]),
    ("refusals", &["error"]),
    ("doors", &["config", "http", "keys", "serve"]),
    ("bus", &["edges", "idempotency", "receipts"]),
    ("message", &["publisher::lanes", "publisher::limits", "publisher::message", "publisher::wave_slots"]),
    ("steps", &["publisher::live", "publisher::store"]),
    ("hand-over", &["publisher::handover"]),
    ("waves", &["publisher::bulk"]),
    ("publish", &["control", "guard", "publisher"]),
    ("app", &["app"]),
    ("dialects", &["connmix", "native"]),
    ("table", &["fuzz", "routes"]),
    ("document", &["openapi"]),
    ("wiring", &["crate"]),
];

fn assert_held(floors: &[(&str, &[&str])]) {
    let source = concat!(env!("CARGO_MANIFEST_DIR"), "/src");
    let violations = floors::violations(source, floors).expect("the source can be read");
    assert_eq!(violations, Vec::<String>::new());
}

#[test]
fn no_module_imports_from_a_floor_above_its_own() {
    assert_held(FLOORS);
}

/// Modules of the same floor may import each other, but the two dialects must not. So the test puts each
/// above the other.
#[test]
fn the_dialects_know_nothing_of_each_other() {
    const DIALECTS: [(&str, &[&str]); 2] = [("connmix", &["connmix"]), ("native", &["native"])];
    let at = FLOORS.iter().position(|(name, _)| *name == "dialects").unwrap();
    let (below, above) = (&FLOORS[..at], &FLOORS[at + 1..]);
    let [connmix, native] = DIALECTS;
    assert_held(&[below, &[connmix, native], above].concat());
    assert_held(&[below, &[native, connmix], above].concat());
}
