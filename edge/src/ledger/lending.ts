/** What a shard says of one month or day. Sums since it began, micro-USD. */
export interface WindowReport {
  window: string;
  received: number;
  givenBack: number;
  settled: number;
}

/** A shard asks for budget. */
export interface DrawRequest {
  tenant: string;
  child: string;
  /** How many shards there are. */
  shards: number;
  month: string;
  monthlyBudget: number;
  windows: (WindowReport & { budget: number; need: number })[];
}

export interface DrawReply {
  windows: { window: string; granted: number }[];
  /** Micro-USD of the month that nobody holds. */
  free: number;
  /** The need is not met, and nothing is left that could be collected. */
  dry: boolean;
}

/** A shard tells what it gave back and spent. */
export interface ReturnReport {
  tenant: string;
  child: string;
  month: string;
  monthlyBudget: number;
  windows: WindowReport[];
}
