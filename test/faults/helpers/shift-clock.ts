/**
 * Given to Node with `--import`: the process's clock is off by FATHOM_TEST_CLOCK_MS milliseconds, as on a machine whose clock
 * nobody sets.
 */
const shift = Number(process.env.FATHOM_TEST_CLOCK_MS);
const now = Date.now.bind(Date);
Date.now = () => now() + shift;
