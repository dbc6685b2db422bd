/** A calibration that cannot be done: data, options or an engine that do not fit. The message says why and what would do. */
export class CalibrationError extends Error {
  override readonly name = "CalibrationError";
}
