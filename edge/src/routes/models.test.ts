import { ModelDescription, ModelList } from "@fathom/shared";
import { expect, test } from "vitest";
import { edgeWith, newTenant, refusal, StubService, send } from "../testing/edge.ts";

async function get(path: string, ask = send): Promise<Response> {
  const { key } = await newTenant("free");
  return await ask(path, { headers: { authorization: `Bearer ${key}` } });
}

test("lists the model of the services with its exits", async () => {
  const { data } = ModelList.parse(await (await get("/v1/models")).json());
  expect(data[0]?.id).toBe("stub-30");
  expect(data[0]?.fathom?.exits.map(({ depth }) => depth)).toEqual([12, 18, 24, 30]);
});

test("lists a model once, however many services run it", async () => {
  const services = await Promise.all(["a", "b", "a"].map((model) => new StubService().set({ model })));
  const edge = edgeWith({ UPSTREAMS: services.map(({ url }) => url).join(",") });
  const { data } = ModelList.parse(await (await get("/v1/models", edge)).json());
  const real = data.filter(({ fathom }) => fathom?.virtual === undefined);
  expect(real.map(({ id }) => id).toSorted()).toEqual(["a", "b"]);
});

test("lists the virtual models that the plan may use, with what they stand for", async () => {
  const { data } = ModelList.parse(await (await get("/v1/models")).json());
  expect(data.slice(1).map(({ id, fathom }) => [id, fathom?.virtual])).toEqual([
    ["fathom", { model: "stub-30" }],
    ["fathom@12", { model: "stub-30", depth: 12 }],
    ["fathom@18", { model: "stub-30", depth: 18 }],
    ["fathom-fast", { model: "stub-30", depth: 12 }],
    ["fathom-balanced", { model: "stub-30", max_depth: 18 }],
    ["fathom-best", { model: "stub-30", depth: 18 }],
    ["fathom-confidence", { model: "stub-30", exit: "confidence" }],
    ["fathom-speculative", { model: "stub-30", exit: "speculative" }],
  ]);
});

test("shows one model by its name, real or virtual", async () => {
  for (const name of ["stub-30", "fathom", "fathom@18", "stub-30-best", "stub-30%4012"]) {
    const shown = ModelDescription.parse(await (await get(`/v1/models/${name}`)).json());
    expect(shown.id).toBe(decodeURIComponent(name));
    expect(shown.fathom?.virtual?.model).toBe(name === "stub-30" ? undefined : "stub-30");
  }
  expect(await refusal(await get("/v1/models/fathom@13"))).toMatchObject({ code: "invalid_depth", param: "model" });
  expect(await refusal(await get("/v1/models/gpt-5"))).toMatchObject({ status: 404, code: "model_not_found" });
});
