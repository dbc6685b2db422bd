/** Style of the reference page: light and dark by the reader's wish, one column on a phone. */
export const REFERENCE_STYLE = `
:root { color-scheme: light dark; --line: light-dark(#d8dee4, #30363d); --soft: light-dark(#f6f8fa, #161b22);
  --text: light-dark(#1f2328, #e6edf3); --dim: light-dark(#59636e, #9198a1); --link: light-dark(#0550ae, #79c0ff); }
* { box-sizing: border-box; }
body { margin: 0; background: light-dark(#fff, #0d1117); color: var(--text); font: 16px/1.5 system-ui, sans-serif; }
a { color: var(--link); text-decoration: none; }
a:hover, a:focus-visible { text-decoration: underline; }
code { font: 0.875em ui-monospace, monospace; overflow-wrap: anywhere; }
.page { display: grid; grid-template-columns: 15rem minmax(0, 1fr); gap: 2rem; max-width: 76rem; margin: 0 auto; padding: 0 1.25rem 4rem; }
nav { position: sticky; top: 0; align-self: start; max-height: 100vh; overflow-y: auto; padding: 1.5rem 0; font-size: 0.875rem; }
nav ul { list-style: none; margin: 0 0 1rem; padding: 0; }
nav a { display: block; padding: 0.2rem 0; }
nav strong { color: var(--dim); }
h1 { margin-top: 1.5rem; }
h2 { margin-top: 3rem; border-bottom: 1px solid var(--line); padding-bottom: 0.25rem; }
h3 { margin: 0 0 0.25rem; font-size: 1rem; }
h4 { margin: 1rem 0 0.25rem; font-size: 0.875rem; color: var(--dim); }
article { border: 1px solid var(--line); border-radius: 8px; padding: 1rem; margin: 1rem 0; }
article p { margin: 0.25rem 0; }
.method { display: inline-block; min-width: 4rem; font-weight: 700; text-transform: uppercase; color: var(--link); }
.dim { color: var(--dim); font-size: 0.875rem; }
table { width: 100%; border-collapse: collapse; font-size: 0.875rem; }
td, th { text-align: left; vertical-align: top; padding: 0.35rem 0.75rem 0.35rem 0; border-top: 1px solid var(--line); overflow-wrap: anywhere; }
.status { white-space: nowrap; width: 4rem; }
@media (max-width: 48rem) {
  .page { display: block; }
  nav { position: static; max-height: 45vh; border-bottom: 1px solid var(--line); }
}
`;
