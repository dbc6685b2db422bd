/** A failure of training that the user can mend; the message names the file, record or option. */
export class TrainError extends Error {
  override readonly name = "TrainError";
}
