"""Steps of TRL's own online trainers on given completions, in float64: losses, what they saw on the way, and gradients of every tensor that is trained. See README.md.

    pip install --no-deps --target DIR trl==1.10.0 && PYTHONPATH=DIR python online_steps.py

TRL 1.10 is the last release that has PPO, Nash-MD, XPO and the replay buffer at once.
"""

import copy
import os
import sys
import tempfile
from types import SimpleNamespace

os.environ.setdefault("TRL_EXPERIMENTAL_SILENCE", "1")

import torch
import trl
from common import HERE, arr, header, num, save_tensors, write_json
from datasets import Dataset
from grpo import made_up, shift, words
from peft import PeftModel
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM, LlamaForSequenceClassification
from trl import RLOOConfig, RLOOTrainer
from trl.experimental import ppo as ppo_package
from trl.experimental.gkd import GKDConfig, GKDTrainer
from trl.experimental.grpo_with_replay_buffer import GRPOWithReplayBufferConfig, GRPOWithReplayBufferTrainer
from trl.experimental.nash_md import NashMDConfig, NashMDTrainer
from trl.experimental.online_dpo import OnlineDPOConfig, OnlineDPOTrainer
from trl.experimental.ppo import PPOConfig, PPOTrainer
from trl.experimental.xpo import XPOConfig, XPOTrainer

VOCAB, EOS, PAD, LENGTH = 131, 2, 0, 7
# Prompts of one length: the mask of left padding makes a NaN in float64.
PROMPTS = [[1, 9, 14, 7, 22, 30], [1, 5, 8, 8, 61, 100], [1, 40, 41, 90, 3, 17]]
FOLDER = os.path.join(HERE, "tiny", "untied")
TENSORS = {}


def base(folder=FOLDER):
    return LlamaForCausalLM.from_pretrained(folder, attn_implementation="eager", dtype=torch.float64)


def policy():
    return PeftModel.from_pretrained(base(), os.path.join(FOLDER, "adapter"), is_trainable=True).double()


def judge():
    """A reward model: its scores are written down, so that nothing else is known of it."""
    torch.manual_seed(5)
    config = LlamaConfig.from_pretrained(FOLDER, num_labels=1, pad_token_id=PAD)
    model = LlamaForSequenceClassification(config).double().eval()
    # The scores of an untrained model are all near 0.
    model.score.weight.data *= 50
    return model


def even(completion_ids, **kwargs):
    return [sum(t % 2 == 0 for t in ids if t != PAD) / sum(t != PAD for t in ids) for ids in completion_ids]


def padded(completions, length=LENGTH):
    ids = torch.tensor([c + [PAD] * (length - len(c)) for c in completions])
    mask = torch.tensor([[1] * len(c) + [0] * (length - len(c)) for c in completions])
    return ids, mask


def rows_of(data):
    return Dataset.from_list([{"prompt": " ".join(f"<{t}>" for t in p)} for p in data])


def settings(out, **more):
    return {
        "output_dir": out, "use_cpu": True, "bf16": False, "report_to": "none", "save_strategy": "no", "learning_rate": 0.0, "gradient_checkpointing": False,
        "disable_tqdm": True, "seed": 3, **more,
    }


def tap(trainer, named, seen):
    """Writes down what TRL differentiates, and its gradients by the tensors that are trained."""
    backward = trainer.accelerator.backward

    def recorded(loss, **kwargs):
        grads = torch.autograd.grad(loss, list(named.values()), retain_graph=True, allow_unused=True)
        seen.append({"loss": num(loss.detach(), 12), "grads": {n: g if g is not None else torch.zeros_like(p) for (n, p), g in zip(named.items(), grads)}})
        backward(loss, **kwargs)

    trainer.accelerator.backward = recorded


def trained(model):
    return {n.replace(".default.", "."): p for n, p in model.named_parameters() if p.requires_grad}


def record(name, step, **more):
    grads = step["grads"]
    for tensor, g in grads.items():
        TENSORS[f"{name}.{tensor}"] = g.double().flatten().float()
    norm = torch.sqrt(sum((g.double() ** 2).sum() for g in grads.values()))
    print(name, step["loss"], float(norm), flush=True)
    return {"loss": step["loss"], "gradNorm": num(norm), "tensors": len(grads), **more}


PAIRS = made_up(VOCAB, 6, LENGTH)


def online_dpo(name, **given):
    """Completions k and k + 3 are those of prompt k."""

    class Given(OnlineDPOTrainer):
        def _generate(self, model, prompts, images=None):
            ids = torch.tensor(PROMPTS)
            return ids.repeat(2, 1), torch.ones_like(ids).repeat(2, 1), *padded(PAIRS)

        def _calculate_rewards_from_functions(self, **kwargs):
            scores = super()._calculate_rewards_from_functions(**kwargs)
            self.scores = scores.clone()
            return scores

    model, seen = policy(), []
    with tempfile.TemporaryDirectory() as out:
        args = OnlineDPOConfig(**settings(out, max_steps=1, per_device_train_batch_size=3, max_new_tokens=LENGTH, **given))
        trainer = Given(model=model, ref_model=base(), reward_funcs=[even], args=args, train_dataset=rows_of(PROMPTS), processing_class=words(VOCAB))
        trainer.get_train_dataloader = lambda: [{"prompt": rows_of(PROMPTS)["prompt"][:]}]
        tap(trainer, trained(model), seen)
        trainer.train()
    return record(name, seen[0], trl=given, scores=arr(trainer.scores))


def opponents(name, trainer_class, config_class, **given):
    """XPO and Nash-MD: completion k is the policy's, k + 3 the opponent's."""
    model, seen, scores = policy(), [], {}
    ids = torch.tensor(PROMPTS)
    both = [torch.cat([ids, padded(PAIRS[k : k + 3])[0]], 1) for k in (0, 3)]

    class Given(trainer_class):
        def _generate_completions(self, *args):
            return both

        def _compute_rewards(self, *args):
            penalty, self.args.missing_eos_penalty = self.args.missing_eos_penalty, None
            scores["given"] = torch.cat(super()._compute_rewards(*args))
            self.args.missing_eos_penalty = penalty
            return super()._compute_rewards(*args)

    with tempfile.TemporaryDirectory() as out:
        args = config_class(**settings(out, max_steps=1, per_device_train_batch_size=3, max_new_tokens=LENGTH, **given))
        trainer = Given(model=model, ref_model=base(), reward_funcs=judge(), args=args, train_dataset=rows_of(PROMPTS), processing_class=words(VOCAB), **({"reward_processing_classes": words(VOCAB)} if trainer_class is XPOTrainer else {}))
        trainer.get_train_dataloader = lambda: [{"prompt": rows_of(PROMPTS)["prompt"][:]}]
        tap(trainer, trained(model), seen)
        trainer.train()
    return record(name, seen[0], trl=given, scores=arr(scores["given"], 12))


GROUPS = made_up(VOCAB, 12, LENGTH)


def rloo(name, moved, **given):
    """Groups of 4; old log-probs are moved so that ratios are not 1."""
    model, seen, facts = policy(), [], {}

    class Given(RLOOTrainer):
        def _generate_single_turn(self, *args, **kwargs):
            return [list(c) for c in GROUPS]

        def _compute_loss(self, model, inputs):
            inputs["old_logps"] = inputs["old_logps"] + moved * torch.sin(torch.arange(12, dtype=torch.float64) * 0.9)
            keep = inputs["completion_mask"].bool()
            facts.update(
                rows=[{"prompt": p[m.bool()].tolist(), "completion": c[k].tolist()} for p, m, c, k in zip(inputs["prompt_ids"], inputs["prompt_mask"], inputs["completion_ids"], keep)],
                advantages=arr(inputs["advantages"]), old=arr(inputs["old_logps"], 12),
            )
            return super()._compute_loss(model, inputs)

    with tempfile.TemporaryDirectory() as out:
        args = RLOOConfig(**settings(out, max_steps=1, per_device_train_batch_size=12, num_generations=4, max_completion_length=LENGTH, shuffle_dataset=False, **given))
        trainer = Given(model=model, reward_funcs=[even], args=args, train_dataset=rows_of(PROMPTS), processing_class=words(VOCAB))
        # TRL takes a copy of a loaded adapter as the reference; here it is the model below the adapter.
        trainer.ref_model = base()
        tap(trainer, trained(model), seen)
        trainer.train()
    return record(name, seen[0], trl=given, shift=moved, **facts)


class Critic(nn.Module):
    """A value model on the backbone of the policy, as TRL's PPO calls one: its gradient reaches the adapter that both share."""

    base_model_prefix = "model"

    def __init__(self, lm):
        super().__init__()
        self.model = lm.base_model.model.model
        self.score = nn.Linear(lm.config.hidden_size, 1, bias=False).double()
        torch.manual_seed(9)
        nn.init.normal_(self.score.weight, std=0.5)


def ppo(name, count=8, **given):
    """Completions without padding: TRL gives the score of one that ends early to the padding behind it. Old log-probs and values are moved, so that both clips act."""
    model, seen, facts = policy(), [], {}
    completions = [[3 + (k * 131 + t * 17 + k * t * t) % (VOCAB - 3) for t in range(LENGTH)] for k in range(count)]
    prompts = [PROMPTS[k % 3] for k in range(count)]
    critic, reward = Critic(model), judge()
    temperature = given.get("temperature", 0.7)

    def generation(lm, queries, *rest):
        texts = torch.tensor([completions[prompts_left.index(q)] for q in queries.tolist()])
        both = torch.cat([queries, texts], 1)
        logits = lm(both).logits[:, queries.shape[1] - 1 : -1] / (temperature + 1e-7)
        # More for the token that was taken: its log-prob is moved, and those of the others with it.
        more = torch.stack([shift(0.5, LENGTH, k) for k in range(len(texts))])
        return both, logits.scatter_add(2, texts[:, :, None], more[:, :, None])

    get_reward = ppo_package.ppo_trainer.get_reward

    def moved_reward(of, texts, *rest):
        logits, scores, lengths = get_reward(of, texts, *rest)
        if of is critic:
            t = texts.shape[1]
            logits = logits + torch.stack([shift(0.5, t, k + 3) for k in range(len(texts))])[:, :, None]
            facts["values"] = arr(logits[:, t - LENGTH - 1 : -1, 0], 12)
        else:
            facts["scores"] = arr(scores, 12)
        return logits, scores, lengths

    whiten = ppo_package.ppo_trainer.masked_whiten

    def seen_whiten(values, mask, shift_mean=True):
        out = whiten(values, mask, shift_mean)
        if shift_mean:
            facts.update(raw=arr(values, 12), advantages=arr(out, 12))
        return out

    # Every query is a prompt of its own: a last token that says which completion it gets.
    prompts_left = [p[:-1] + [50 + k] for k, p in enumerate(prompts)]
    own = {"batch_generation": generation, "get_reward": moved_reward, "masked_whiten": seen_whiten}
    theirs = {k: getattr(ppo_package.ppo_trainer, k) for k in own}
    named = {**trained(model), "score.weight": critic.score.weight}
    try:
        for k, v in own.items():
            setattr(ppo_package.ppo_trainer, k, v)
        with tempfile.TemporaryDirectory() as out:
            args = PPOConfig(
                **settings(out, per_device_train_batch_size=count, total_episodes=count, num_ppo_epochs=1, num_mini_batches=1, response_length=LENGTH, local_rollout_forward_batch_size=count,
                           num_sample_generations=0, missing_eos_penalty=None, **given)
            )
            data = Dataset.from_list([{"input_ids": p} for p in prompts_left])
            trainer = PPOTrainer(args=args, processing_class=words(VOCAB), model=model, ref_model=base(), reward_model=reward, train_dataset=data, value_model=critic, eval_dataset=data)
            tap(trainer, named, seen)
            captured = {}
            select = ppo_package.ppo_trainer.selective_log_softmax

            def seen_select(logits, ids):
                out = select(logits, ids)
                captured.setdefault("all", []).append((ids, out))
                return out

            ppo_package.ppo_trainer.selective_log_softmax = seen_select
            try:
                trainer.train()
            finally:
                ppo_package.ppo_trainer.selective_log_softmax = select
    finally:
        for k, v in theirs.items():
            setattr(ppo_package.ppo_trainer, k, v)
    (ids, old), (_, ref) = captured["all"][:2]
    order = [completions.index(row) for row in ids.tolist()]
    return record(
        name, seen[0], trl=given, head=arr(critic.score.weight[0], 9),
        rows=[{"prompt": prompts_left[i], "completion": completions[i]} for i in order], old=arr(old, 12), reference=arr(ref, 12), **facts,
    )


class PerGroup(torch.Tensor):
    """Deviations [groups, generations], of which TRL looks for the groups that differ along the wrong axis."""

    def max(self, dim):
        return torch.max(self.as_subclass(torch.Tensor), dim=1 - dim)


def replay(name, **given):
    """Two rollouts without an update between them: of the first, three groups that differ, the buffer keeps two; in the second two groups are all alike and give their place to these."""
    model, seen, facts = policy(), [], []
    first = [[[10 + 2 * k + (j < w) + 20 * g for k in range(4)] for j in range(4)] for g, w in enumerate((1, 2, 3))]
    second = [[[11, 13, 15, 17]] * 4, [[20, 22, 24, 26], [21, 23, 25, 27], [20, 22, 24, 27], [20, 22, 24, 25]], [[31, 33, 35]] * 4]
    rollouts = [[c for g in groups for c in g] for groups in (first, second)]

    class Given(GRPOWithReplayBufferTrainer):
        def _generate_single_turn(self, *args, **kwargs):
            return [list(c) for c in rollouts.pop(0)], None

        def sample_from_replay_buffer(self, *args, **kwargs):
            data = super().sample_from_replay_buffer(*args, **kwargs)
            # A row of a tensor takes no list.
            return {**data, "advantages": [torch.tensor(a) for a in data["advantages"]]}

        def update_with_replay_buffer(self, advantages, deviations, *rest):
            # Documented for [groups, generations], but called with one long list, which makes a single group of the whole batch (TRL 1.10 to 1.13).
            out = super().update_with_replay_buffer(advantages.view(-1, 4), deviations.view(-1, 4).as_subclass(PerGroup), *rest)
            if out is not None:
                out["advantages"] = out["advantages"].as_subclass(torch.Tensor).flatten()
            return out

        def _generate_and_score_completions(self, inputs):
            out = super()._generate_and_score_completions(inputs)
            facts.append({"items": int(out["num_items_in_batch"]), "tokens": int(out["completion_mask"].sum()), "scores": arr([s for s, _ in self.replay_buffer.heap]), "rows": [
                {"prompt": p[m.bool()].tolist(), "completion": c[k.bool()].tolist(), "advantage": num(a)}
                for p, m, c, k, a in zip(out["prompt_ids"], out["prompt_mask"], out["completion_ids"], out["completion_mask"], out["advantages"])
            ]})
            return out

    with tempfile.TemporaryDirectory() as out:
        args = GRPOWithReplayBufferConfig(
            **settings(out, max_steps=2, per_device_train_batch_size=12, num_generations=4, max_completion_length=LENGTH, replay_buffer_size=2, shuffle_dataset=False, **given)
        )
        trainer = Given(model=model, reward_funcs=[even], args=args, train_dataset=rows_of(PROMPTS), processing_class=words(VOCAB))
        tap(trainer, trained(model), seen)
        trainer.train()
    return record(name, seen[1], trl=given, rollouts=[first, second], **facts[1])


def gkd(name, who, **given):
    """`who` answers: the student, the teacher (seq_kd) or the rows themselves."""
    model, teacher, seen = policy(), base(os.path.join(HERE, "tiny", "tied")), []
    # Rows of one length, as for the prompts; what is generated ends at different places.
    answers = [[4 + (k * 37 + t * 11) % (VOCAB - 4) for t in range(LENGTH)] for k in range(3)]
    said = made_up(VOCAB, 3, LENGTH)
    calls = []

    def generate(which):
        def give(input_ids, **kwargs):
            calls.append(which)
            return SimpleNamespace(sequences=torch.cat([input_ids, padded(said)[0]], 1))

        return give

    model.generate, teacher.generate = generate("student"), generate("teacher")
    class Given(GKDTrainer):
        def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
            self.seen = {"items": None if num_items_in_batch is None else int(num_items_in_batch), "tokens": int((inputs["labels"][:, 1:] != -100).sum())}
            return super().compute_loss(model, inputs, return_outputs, num_items_in_batch)

    with tempfile.TemporaryDirectory() as out:
        args = GKDConfig(**settings(out, max_steps=1, per_device_train_batch_size=3, max_new_tokens=LENGTH, lmbda=1.0 if who == "student" else 0.0, seq_kd=who == "teacher", **given))
        model.generation_config.eos_token_id = EOS
        data = Dataset.from_list([{"prompt": " ".join(f"<{t}>" for t in p), "input_ids": p + a, "completion_mask": [0] * len(p) + [1] * len(a)} for p, a in zip(PROMPTS, answers)])
        trainer = Given(model=model, teacher_model=teacher, args=args, train_dataset=data, processing_class=words(VOCAB))
        trainer.get_train_dataloader = lambda: [trainer.data_collator([data[k] for k in range(3)])]
        tap(trainer, trained(model), seen)
        trainer.train()
    assert calls == ([] if who == "rows" else [who]), calls
    return record(name, seen[0], trl=given, who=who, rows=[{"prompt": p, "completion": c} for p, c in zip(PROMPTS, answers if who == "rows" else said)], **trainer.seen)


CASES = {
    "online-dpo": lambda n: online_dpo(n),
    "online-dpo-ipo": lambda n: online_dpo(n, loss_type="ipo", missing_eos_penalty=0.5),
    "xpo": lambda n: opponents(n, XPOTrainer, XPOConfig, alpha=0.01),
    "xpo-ipo": lambda n: opponents(n, XPOTrainer, XPOConfig, alpha=0.01, loss_type="ipo", missing_eos_penalty=0.5),
    "nash-md": lambda n: opponents(n, NashMDTrainer, NashMDConfig),
    "nash-md-penalty": lambda n: opponents(n, NashMDTrainer, NashMDConfig, beta=0.3, missing_eos_penalty=0.5),
    "rloo": lambda n: rloo(n, 0.0),
    "rloo-moved": lambda n: rloo(n, 0.3, beta=0.2, epsilon_high=0.28, normalize_advantages=True),
    "ppo": lambda n: ppo(n),
    "ppo-k3": lambda n: ppo(n, kl_estimator="k3", whiten_rewards=True, gamma=0.9, lam=0.8, vf_coef=0.5, temperature=1.0),
    "replay": lambda n: replay(n, loss_type="grpo"),
    "replay-dapo": lambda n: replay(n, loss_type="dapo"),
    "gkd-student": lambda n: gkd(n, "student"),
    "gkd-teacher": lambda n: gkd(n, "teacher", beta=0.1),
    "gkd-rows": lambda n: gkd(n, "rows", beta=1.0),
}

if __name__ == "__main__":
    wanted = sys.argv[1:] or list(CASES)
    head = header("online_steps.py", trl=trl.__version__, variant="untied")
    out = {"header": head, "prompts": PROMPTS, "pairs": PAIRS, "maxCompletionLength": LENGTH}
    for case in wanted:
        out[f"case:{case}"] = CASES[case](case)
    if wanted == list(CASES):
        write_json("tiny/online-steps.json", out)
        save_tensors("tiny/online-steps.safetensors", TENSORS, head)
