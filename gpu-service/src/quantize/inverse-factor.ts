/**
 * The upper triangular U with H⁻¹ = Uᵀ·U, for H symmetric and positive definite after damping: GPTQ's "Cholesky form" (Frantar
 * et al. 2023, section 3.3, step 3). H = R·Rᵀ with R upper triangular gives U = R⁻¹, so one factorisation and one triangular
 * inverse do; both run backwards through H, as a Cholesky factorisation of H with rows and columns reversed.
 * @param gram H [k, k], row-major; left as it is
 * @param damping share of the mean diagonal that is added to it (section 3.3: 1%)
 * @returns U [k, k], row-major, zero below the diagonal
 */
export function inverseFactor(gram: Float64Array, k: number, damping: number): Float32Array {
  const m = new Float64Array(k * k);
  let trace = 0;
  for (let i = 0; i < k; i++) trace += gram[i * k + i] ?? 0;
  const extra = trace > 0 ? (damping * trace) / k : 1;
  for (let i = 0; i < k; i++) {
    for (let j = 0; j <= i; j++) m[i * k + j] = gram[(k - 1 - i) * k + (k - 1 - j)] as number;
    m[i * k + i] = (m[i * k + i] as number) + extra;
  }
  factorise(m, k);
  const inverse = invertLower(m, k);
  const u = new Float32Array(k * k);
  for (let i = 0; i < k; i++) {
    for (let j = i; j < k; j++) u[i * k + j] = inverse[(k - 1 - i) * k + (k - 1 - j)] as number;
  }
  return u;
}

/** Cholesky factorisation in place: the lower triangle L of m = L·Lᵀ. @throws RangeError when m is not positive definite. */
function factorise(m: Float64Array, k: number): void {
  for (let i = 0; i < k; i++) {
    const row = m.subarray(i * k, i * k + i);
    for (let j = 0; j < i; j++) {
      row[j] = ((row[j] as number) - dot(row, m, j * k, j)) / (m[j * k + j] as number);
    }
    const rest = (m[i * k + i] as number) - dot(row, m, i * k, i);
    if (!(rest > 0)) throw new RangeError("the matrix is not positive definite");
    m[i * k + i] = Math.sqrt(rest);
  }
}

/** L⁻¹ of a lower triangular L, transposed: row j holds column j, so that every product runs over neighbours. */
function invertLower(l: Float64Array, k: number): Float64Array {
  const columns = new Float64Array(k * k);
  for (let j = 0; j < k; j++) {
    const x = columns.subarray(j * k, (j + 1) * k);
    x[j] = 1 / (l[j * k + j] as number);
    for (let i = j + 1; i < k; i++) {
      let sum = 0;
      const row = i * k;
      for (let n = j; n < i; n++) sum += (l[row + n] as number) * (x[n] as number);
      x[i] = -sum / (l[row + i] as number);
    }
  }
  const inverse = new Float64Array(k * k);
  for (let j = 0; j < k; j++) for (let i = j; i < k; i++) inverse[i * k + j] = columns[j * k + i] as number;
  return inverse;
}

function dot(a: Float64Array, b: Float64Array, from: number, length: number): number {
  let sum = 0;
  for (let n = 0; n < length; n++) sum += (a[n] as number) * (b[from + n] as number);
  return sum;
}
