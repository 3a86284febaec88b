"""Makes twin.safetensors: a small LSTM autoencoder trained 50 steps by PyTorch. Run: python make.py (torch, safetensors, numpy; PyTorch 2.15 was used)."""
import torch
from safetensors.torch import save_file
from torch import nn


class Autoencoder(nn.Module):
    def __init__(self, features, wide, narrow, latent):
        super().__init__()
        self.encoder1 = nn.LSTM(features, wide, batch_first=True)
        self.encoder2 = nn.LSTM(wide, narrow, batch_first=True)
        self.to_latent = nn.Linear(narrow, latent)
        self.decoder1 = nn.LSTM(latent, narrow, batch_first=True)
        self.decoder2 = nn.LSTM(narrow, wide, num_layers=2, batch_first=True)
        self.output = nn.Linear(wide, features)

    def forward(self, x):
        h, _ = self.encoder1(x)
        _, (h, _) = self.encoder2(h)
        z = self.to_latent(h[-1])
        y, _ = self.decoder1(z.unsqueeze(1).expand(-1, x.shape[1], -1))
        y, _ = self.decoder2(y)
        return self.output(y)


def curve(make_optimizer, clip):
    torch.manual_seed(3)
    model = Autoencoder(11, 18, 9, 5)
    start = {"start." + k: v.detach().clone() for k, v in model.state_dict().items()}
    t = torch.arange(13.0)
    data = torch.stack([torch.sin(t[:, None] * torch.rand(11) + 6 * torch.rand(11)) for _ in range(21)]) + 0.1 * torch.randn(21, 13, 11)
    optimizer, losses = make_optimizer(model.parameters()), []
    for step in range(50):
        x = data[7 * (step % 3):7 * (step % 3) + 7]
        optimizer.zero_grad()
        loss = ((model(x) - x) ** 2).mean()
        loss.backward()
        if clip:
            nn.utils.clip_grad_norm_(model.parameters(), clip)
        optimizer.step()
        losses.append(loss.item())
    return start, data, torch.tensor(losses, dtype=torch.float64), {"end." + k: v.detach().clone() for k, v in model.state_dict().items()}


start, data, adam, end = curve(lambda p: torch.optim.Adam(p, lr=5e-3), 0.1)
*_, adamw, _ = curve(lambda p: torch.optim.AdamW(p, lr=5e-3, weight_decay=0.05), 0)
*_, sgd, _ = curve(lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, nesterov=True, weight_decay=1e-3), 0)
save_file({**start, **end, "data": data, "losses.adam_clip": adam, "losses.adamw": adamw, "losses.sgd": sgd}, "twin.safetensors",
          metadata={"made_by": "make.py", "torch": torch.__version__})
print(adam[[0, 9, 49]], adamw[[0, 9, 49]], sgd[[0, 9, 49]])
