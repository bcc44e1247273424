//! What must not compile: the promises that the types keep. Each file of `compile_fail` breaks one of them.

#[test]
fn programs_that_break_a_promise_do_not_compile() {
    trybuild::TestCases::new().compile_fail("tests/compile_fail/*.rs");
}
