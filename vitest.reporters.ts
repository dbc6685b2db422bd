/** The default reporter, and a JSON report at VITEST_JSON where a script counts the results. */
export const reporters: (string | [string, { outputFile: string }])[] =
  process.env.VITEST_JSON === undefined ? ["default"] : ["default", ["json", { outputFile: process.env.VITEST_JSON }]];
