import { ModelDescription, ModelList } from "@fathom/shared";
import { expect, test } from "vitest";
import { edgeWith, newTenant, refusal, StubService, send } from "../testing/edge.ts";

async function get(path: string, ask = send): Promise<Response> {
  const { key } = await newTenant("free");
  return await ask(path, { headers: { authorization: `Bearer ${key}` } });
}

test("lists the model of the services with its exits", async () => {
  const { data } = ModelList.parse(await (await get("/v1/models")).json());
  expect(data.map(({ id }) => id)).toEqual(["stub-30"]);
  expect(data[0]?.fathom?.exits.map(({ depth }) => depth)).toEqual([12, 18, 24, 30]);
});

test("lists a model once, however many services run it", async () => {
  const services = await Promise.all(["a", "b", "a"].map((model) => new StubService().set({ model })));
  const edge = edgeWith({ UPSTREAMS: services.map(({ url }) => url).join(",") });
  const { data } = ModelList.parse(await (await get("/v1/models", edge)).json());
  expect(data.map(({ id }) => id).toSorted()).toEqual(["a", "b"]);
});

test("shows one model by its name or as fathom", async () => {
  for (const name of ["stub-30", "fathom"]) {
    expect(ModelDescription.parse(await (await get(`/v1/models/${name}`)).json()).id).toBe("stub-30");
  }
  expect(await refusal(await get("/v1/models/gpt-5"))).toMatchObject({ status: 404, code: "model_not_found" });
});
